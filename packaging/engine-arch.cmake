# Read by CMake after each project() of the engines, through CMAKE_PROJECT_INCLUDE:
# sets the arm64 instruction set of ggml from the environment. llama-cpp-sys-2
# names armv8-a on the command line whatever the environment says.
if(DEFINED ENV{ENGINE_ARM_ARCH})
    set(GGML_CPU_ARM_ARCH "$ENV{ENGINE_ARM_ARCH}" CACHE STRING "ggml: CPU architecture for ARM" FORCE)
endif()

// whisper.cpp as its own command runs it with `--beam-size 1`: reads raw 16 kHz
// mono s16le samples, prints the text. Built by whisper.sh.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "whisper.h"

int main(int argc, char ** argv) {
    if (argc != 5) {
        std::fprintf(stderr, "usage: %s MODEL SAMPLES THREADS LANGUAGE\n", argv[0]);
        return 64;
    }
    FILE * file = std::fopen(argv[2], "rb");
    if (!file) {
        std::perror(argv[2]);
        return 1;
    }
    std::vector<float> samples;
    int16_t sample;
    while (std::fread(&sample, sizeof sample, 1, file) == 1) {
        samples.push_back(sample / 32768.0f);
    }
    std::fclose(file);

    whisper_context_params context_params = whisper_context_default_params();
    context_params.use_gpu = false;
    whisper_context * context = whisper_init_from_file_with_params(argv[1], context_params);
    if (!context) {
        return 1;
    }
    whisper_full_params params = whisper_full_default_params(WHISPER_SAMPLING_GREEDY);
    params.n_threads = std::atoi(argv[3]);
    params.language = argv[4];
    params.print_progress = false;
    params.print_timestamps = false;
    params.greedy.best_of = 5;
    if (whisper_full(context, params, samples.data(), (int) samples.size()) != 0) {
        return 1;
    }
    for (int i = 0; i < whisper_full_n_segments(context); ++i) {
        std::printf("%s", whisper_full_get_segment_text(context, i));
    }
    std::printf("\n");
    whisper_free(context);
}

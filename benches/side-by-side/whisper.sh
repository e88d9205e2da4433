#!/usr/bin/env bash
# CPU time of friend-lite-whisper beside whisper.cpp's own code: the same
# source, compiler flags, model, audio and threads, greedy, in turns.
#
#   benches/side-by-side/whisper.sh [MODEL [THREADS [LANGUAGE]]]
#
# Models are looked for in $FRIEND_LITE_TEST_MODELS, else in the user's cache
# (`friend-lite models fetch` puts them there). Prints figures and judges none.
set -euo pipefail
cd "$(dirname "$0")/../.."

models=${FRIEND_LITE_TEST_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/friend-lite/models}
model=$models/${1:-ggml-base.bin}
threads=${2:-1}
language=${3:-en}
rounds=${ROUNDS:-3}
work=target/side-by-side
engine=target/release/friend-lite-whisper
[ -f "$model" ] || { echo "no $model: run \`friend-lite models fetch\`" >&2; exit 1; }

cargo build --release --quiet --bin friend-lite-whisper
source=$(cargo metadata --format-version 1 --locked | tr ',' '\n' |
    sed -n 's|.*"manifest_path":"\(.*/whisper-rs-sys-[^/]*\)/Cargo.toml".*|\1|p' | head -n 1)
mkdir -p "$work"
# A copy, because its build writes into its own source.
[ -d "$work/whisper.cpp" ] || cp -r "$source/whisper.cpp" "$work/"
cmake -S benches/side-by-side -B "$work/build" -DWHISPER_SOURCE="$PWD/$work/whisper.cpp" \
    -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
    -DGGML_NATIVE=OFF -DGGML_LLAMAFILE=ON -DGGML_OPENMP=ON \
    -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF -DGGML_AMX_BF16=OFF >"$work/cmake.log" 2>&1
cmake --build "$work/build" --target reference -j "$(nproc)" >>"$work/cmake.log" 2>&1

# The samples of a WAV file.
samples() {
    local at
    at=$(grep -abo data "$1" | head -n 1 | cut -d: -f1)
    tail -c +$((at + 9)) "$1"
}
for wav in tests/speech/jfk.wav tests/speech/librivox/*.wav; do samples "$wav"; done >"$work/all"
samples tests/speech/jfk.wav >"$work/11s"
samples "$(ls tests/speech/librivox/*.wav | head -n 1)" >"$work/7s"
cat "$work/all" "$work/all" >"$work/twice"
head -c $((30 * 32000)) "$work/twice" >"$work/30s"
head -c $((60 * 32000)) "$work/twice" >"$work/60s"

ours() {
    local size
    size=$(stat -c %s "$1")
    {
        echo '{"type":"audio-start"}'
        echo "{\"type\":\"audio-chunk\",\"payload_length\":$size}"
        cat "$1"
        echo '{"type":"audio-stop"}'
    } | "$engine" --model "$model" --threads "$threads" --language "$language"
}
theirs() { "$work/build/reference" "$model" "$1" "$threads" "$language" 2>"$work/reference.log"; }

# CPU seconds, user and system, of a command whose output goes to a file.
TIMEFORMAT='%U %S'
cpu() {
    local out=$1
    shift
    { time "$@" >"$out"; } 2>&1 | tail -n 1 | awk '{ print $1 + $2 }'
}
least() { sort -n "$1" | head -n 1; }

echo "model $(basename "$model"), $threads thread(s), language $language, least CPU seconds of $rounds rounds"
printf '%-6s %10s %14s %7s\n' clip whisper.cpp friend-lite ratio
for clip in 7s 11s 30s 60s; do
    : >"$work/theirs" && : >"$work/ours"
    for _ in $(seq "$rounds"); do
        cpu "$work/theirs.$clip.txt" theirs "$work/$clip" >>"$work/theirs"
        cpu "$work/ours.$clip.json" ours "$work/$clip" >>"$work/ours"
    done
    awk -v clip="$clip" -v a="$(least "$work/theirs")" -v b="$(least "$work/ours")" \
        'BEGIN { printf "%-6s %10.2f %14.2f %7.2f\n", clip, a, b, b / a }'
done
echo "texts: $work/*.txt, $work/*.json"

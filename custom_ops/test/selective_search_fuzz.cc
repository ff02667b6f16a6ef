// Searches random images on several threads and compares the results with those of one thread.
// tests/ops/test_selective_search_fuzz.py compiles it together with the search under sanitizers, without TensorFlow.
//
//     selective_search_fuzz ROUNDS
//
// Prints a checksum of all boxes, which must equal that of the vectorised library.

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>

#include "../cc/selective_search/selective_search.h"

namespace {

using namespace tf_fast_rcnn::selective_search;

std::mt19937 random_bits(0);

int64_t Below(int64_t limit) { return static_cast<int64_t>(random_bits() % static_cast<uint64_t>(limit)); }

// A constant image, noise, or rectangles. The array has exactly the size of the image, so that sanitizers detect
// out-of-bounds accesses.
std::unique_ptr<uint8_t[]> RandomImage(int64_t height, int64_t width) {
  std::unique_ptr<uint8_t[]> values(new uint8_t[height * width * 3]);
  const int64_t kind = Below(4), step = 1 + Below(20);
  const uint32_t salt = random_bits();
  for (int64_t i = 0; i < height * width * 3; ++i) {
    const int64_t y = i / (3 * width), x = i / 3 % width;
    const uint32_t patch = (static_cast<uint32_t>(y / step * 7919 + x / step * 104729 + i % 3) ^ salt) * 2654435761u;
    values[i] = static_cast<uint8_t>(kind == 0 ? salt : kind == 1 ? random_bits() : patch >> 24);
  }
  return values;
}

uint64_t Checksum(const Proposals& proposals, uint64_t sum) {
  for (const Box& box : proposals.boxes) {
    for (const int32_t side : {box.top, box.left, box.bottom, box.right}) sum = (sum ^ side) * 0x100000001B3;
  }
  return sum;
}

}  // namespace

int main(int, char** arguments) {
  uint64_t sum = 0;
  for (int round = std::atoi(arguments[1]); round > 0; --round) {
    const int64_t longest = Below(4) == 0 ? 150 : 40, height = 1 + Below(longest), width = 1 + Below(longest);
    const std::unique_ptr<uint8_t[]> image = RandomImage(height, width);
    const Options options = {Below(2) ? &FastMode() : &QualityMode(), 1 + Below(300), random_bits(),
                             Below(2) ? 0 : 1 + Below(60), static_cast<double>(Below(3)) / 10};
    const Proposals found = SelectiveSearch({image.get(), height, width}, options, 1, StartThreads(1));
    const int threads = static_cast<int>(2 + Below(3));
    const Proposals again = SelectiveSearch({image.get(), height, width}, options, threads, StartThreads(threads));
    if (!(found.boxes == again.boxes)) {
      std::printf("%d threads return different boxes for %d x %d\n", threads, static_cast<int>(height),
                  static_cast<int>(width));
      return 1;
    }
    sum = Checksum(found, sum);
  }
  std::printf("%016llx\n", static_cast<unsigned long long>(sum));
  return 0;
}

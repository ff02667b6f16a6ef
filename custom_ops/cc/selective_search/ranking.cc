#include "ranking.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace tf_fast_rcnn {
namespace selective_search {
namespace {

// Number `index` of the sequence that starts at `seed` (splitmix64): 53 random bits of a number in (0, 1].
double RandomNumber(uint64_t seed, uint64_t index) {
  uint64_t bits = seed + (index + 1) * 0x9E3779B97F4A7C15;
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB;
  bits ^= bits >> 31;
  return static_cast<double>((bits >> 11) + 1) / static_cast<double>(uint64_t{1} << 53);
}

struct BoxHash {
  size_t operator()(const Box& box) const {
    uint64_t hash = 0;
    for (const int32_t side : {box.top, box.left, box.bottom, box.right}) {
      hash = (hash ^ static_cast<uint32_t>(side)) * 0x9E3779B97F4A7C15;
      hash ^= hash >> 29;
    }
    return hash;
  }
};

// Different boxes in the order of place times random number.
std::vector<Box> OrderAtRandom(const std::vector<PlacedBox>& boxes, uint64_t seed, double least_side) {
  std::vector<std::pair<double, size_t>> order;
  for (size_t i = 0; i < boxes.size(); ++i) {
    const Box& box = boxes[i].box;
    if (std::min(box.bottom - box.top, box.right - box.left) < least_side) continue;
    order.emplace_back(boxes[i].place * RandomNumber(seed, i), i);
  }
  std::sort(order.begin(), order.end());
  std::unordered_set<Box, BoxHash> seen;
  std::vector<Box> different;
  for (const auto& [rank, i] : order) {
    if (seen.insert(boxes[i].box).second) different.push_back(boxes[i].box);
  }
  return different;
}

bool AreAlike(const Box& a, const Box& b) {
  const int64_t height = std::min(a.bottom, b.bottom) - std::max(a.top, b.top);
  const int64_t width = std::min(a.right, b.right) - std::max(a.left, b.left);
  if (height <= 0 || width <= 0) return false;
  const int64_t common = height * width;
  return 20 * common >= 17 * (a.area() + b.area() - common);
}

// Boxes by size: those that are alike have heights and widths within a factor of 1.18, so that their classes, whose
// sides grow by 1.3, are the same or next to one another.
class BoxesBySize {
 public:
  bool HasAlike(const Box& box) const {
    const auto [rows, columns] = Class(box);
    for (int row = rows - 1; row <= rows + 1; ++row) {
      for (int column = columns - 1; column <= columns + 1; ++column) {
        const auto found = of_class_.find(Key(row, column));
        if (found == of_class_.end()) continue;
        const auto is_alike = [&](const Box& other) { return AreAlike(box, other); };
        if (std::any_of(found->second.begin(), found->second.end(), is_alike)) return true;
      }
    }
    return false;
  }

  void Add(const Box& box) {
    const auto [row, column] = Class(box);
    of_class_[Key(row, column)].push_back(box);
  }

 private:
  static int Key(int row, int column) { return row * 1024 + column; }

  static std::pair<int, int> Class(const Box& box) {
    static const double scale = 1 / std::log(1.3);
    const auto of_side = [](int32_t side) { return 1 + static_cast<int>(std::log(static_cast<double>(side)) * scale); };
    return {of_side(box.bottom - box.top), of_side(box.right - box.left)};
  }

  std::unordered_map<int, std::vector<Box>> of_class_;
};

}  // namespace

std::vector<Box> RankBoxes(const std::vector<PlacedBox>& boxes, uint64_t seed, double least_side, int64_t max_boxes) {
  const auto enough = static_cast<size_t>(max_boxes);
  std::vector<Box> ranked, alike;
  BoxesBySize shown;
  for (const Box& box : OrderAtRandom(boxes, seed, least_side)) {
    if (ranked.size() >= enough) break;
    if (shown.HasAlike(box)) {
      alike.push_back(box);
    } else {
      shown.Add(box);
      ranked.push_back(box);
    }
  }
  alike.resize(std::min(alike.size(), enough - ranked.size()));
  ranked.insert(ranked.end(), alike.begin(), alike.end());
  return ranked;
}

}  // namespace selective_search
}  // namespace tf_fast_rcnn

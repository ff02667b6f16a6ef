#include "ranking.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <unordered_map>
#include <utility>

namespace tf_fast_rcnn {
namespace selective_search {
namespace {

// Element `index` of the sequence with this seed (splitmix64): a number in (0, 1] with 53 random bits.
double RandomNumber(uint64_t seed, uint64_t index) {
  uint64_t bits = seed + (index + 1) * 0x9E3779B97F4A7C15;
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB;
  bits ^= bits >> 31;
  return static_cast<double>((bits >> 11) + 1) / static_cast<double>(uint64_t{1} << 53);
}

// Removes duplicates and boxes with a side below `min_side`, then sorts by rank (from large to small) times a random
// number.
std::vector<Box> ShuffleByRank(std::vector<Box> boxes, uint64_t seed, double min_side) {
  const auto large_first = [](const Box& a, const Box& b) {
    return std::make_tuple(-a.area(), a.top, a.left, a.bottom, a.right) <
           std::make_tuple(-b.area(), b.top, b.left, b.bottom, b.right);
  };
  std::sort(boxes.begin(), boxes.end(), large_first);
  boxes.erase(std::unique(boxes.begin(), boxes.end()), boxes.end());
  std::vector<std::pair<double, size_t>> order;
  for (size_t i = 0; i < boxes.size(); ++i) {
    if (std::min(boxes[i].bottom - boxes[i].top, boxes[i].right - boxes[i].left) < min_side) continue;
    order.emplace_back(static_cast<double>(i + 1) * RandomNumber(seed, i), i);
  }
  std::sort(order.begin(), order.end());
  std::vector<Box> ordered;
  for (const auto& [rank, i] : order) ordered.push_back(boxes[i]);
  return ordered;
}

bool AreNearDuplicates(const Box& a, const Box& b) {
  const int64_t height = std::min(a.bottom, b.bottom) - std::max(a.top, b.top);
  const int64_t width = std::min(a.right, b.right) - std::max(a.left, b.left);
  if (height <= 0 || width <= 0) return false;
  const int64_t common = height * width;
  return 10 * common >= 9 * (a.area() + b.area() - common);
}

// An index of boxes by size. Near-duplicates have heights and widths within a factor of 1.12; size classes grow by a
// factor of 1.3, so near-duplicates are in the same or in adjacent classes.
class SizeIndex {
 public:
  bool ContainsNearDuplicate(const Box& box) const {
    const auto [rows, columns] = Class(box);
    for (int row = rows - 1; row <= rows + 1; ++row) {
      for (int column = columns - 1; column <= columns + 1; ++column) {
        const auto found = by_class_.find(Key(row, column));
        if (found == by_class_.end()) continue;
        const auto is_near_duplicate = [&](const Box& other) { return AreNearDuplicates(box, other); };
        if (std::any_of(found->second.begin(), found->second.end(), is_near_duplicate)) return true;
      }
    }
    return false;
  }

  void Add(const Box& box) {
    const auto [row, column] = Class(box);
    by_class_[Key(row, column)].push_back(box);
  }

 private:
  static int Key(int row, int column) { return row * 1024 + column; }

  static std::pair<int, int> Class(const Box& box) {
    static const double scale = 1 / std::log(1.3);
    const auto of_side = [](int32_t side) { return 1 + static_cast<int>(std::log(static_cast<double>(side)) * scale); };
    return {of_side(box.bottom - box.top), of_side(box.right - box.left)};
  }

  std::unordered_map<int, std::vector<Box>> by_class_;
};

}  // namespace

std::vector<Box> RankBoxes(std::vector<Box> boxes, uint64_t seed, double min_side, int64_t max_boxes) {
  const auto enough = static_cast<size_t>(max_boxes);
  std::vector<Box> ranked, near_duplicates;
  SizeIndex shown;
  for (const Box& box : ShuffleByRank(std::move(boxes), seed, min_side)) {
    if (ranked.size() >= enough) break;
    if (shown.ContainsNearDuplicate(box)) {
      near_duplicates.push_back(box);
    } else {
      shown.Add(box);
      ranked.push_back(box);
    }
  }
  near_duplicates.resize(std::min(near_duplicates.size(), enough - ranked.size()));
  ranked.insert(ranked.end(), near_duplicates.begin(), near_duplicates.end());
  return ranked;
}

}  // namespace selective_search
}  // namespace tf_fast_rcnn

#include "grouping.h"

#include <algorithm>

#include "texture.h"
#include "vector_loops.h"

namespace tf_fast_rcnn {
namespace selective_search {
namespace {

// The value of a histogram bin that contains all pixels of its region.
constexpr int32_t kFullShare = 32767;

// The heap is not cleaned up before it has this many pairs.
constexpr size_t kMinHeapLimit = 1 << 16;

TF_FAST_RCNN_VECTOR_LOOPS
void Normalize(const uint32_t* counts, int64_t bins, float scale, int16_t* shares) {
  for (int64_t i = 0; i < bins; ++i) shares[i] = static_cast<int16_t>(static_cast<float>(counts[i]) * scale);
}

TF_FAST_RCNN_VECTOR_LOOPS
int32_t Intersection(const int16_t* a, const int16_t* b, int64_t bins) {
  int32_t sum = 0;
  for (int64_t i = 0; i < bins; ++i) sum += std::min(a[i], b[i]);
  return sum;
}

TF_FAST_RCNN_VECTOR_LOOPS
void AddCounts(const uint32_t* from, int64_t bins, uint32_t* to) {
  for (int64_t i = 0; i < bins; ++i) to[i] += from[i];
}

// A pair of neighbouring regions in the heap, the smaller number first.
struct Pair {
  int64_t similarity;
  int32_t first, second;

  // Returns whether the other pair is merged first.
  bool operator<(const Pair& other) const {
    if (similarity != other.similarity) return similarity < other.similarity;
    if (first != other.first) return first > other.first;
    return second > other.second;
  }
};

class Grouping {
 public:
  Grouping(const Regions& regions, const Strategy& strategy)
      : strategy_(strategy),
        layout_(regions.layout),
        pixels_(regions.pixels),
        unit_(kDirections * layout_.channels * kFullShare),
        begin_(strategy.color ? 0 : layout_.color()),
        end_(strategy.texture ? layout_.bins() : layout_.color()),
        sizes_(regions.sizes),
        neighbors_(regions.sizes.size()),
        slots_(regions.sizes.size()) {
    const auto number = static_cast<int32_t>(sizes_.size());
    if (UsesHistograms()) {
      counts_ = regions.counts;
      shares_.resize(counts_.size());
    }
    for (int32_t region = 0; region < number; ++region) {
      nodes_.push_back({regions.boxes[region], 1});
      slots_[region] = region;
      SetShares(region);
    }
    for (const auto& [a, b] : regions.neighbors) Connect(a, b);
    std::make_heap(heap_.begin(), heap_.end());
    marks_.assign(2 * number, -1);
  }

  std::vector<Node> Run() {
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end());
      const Pair best = heap_.back();
      heap_.pop_back();
      // Pairs with a region that has been merged in the meantime are dropped lazily.
      if (IsLive(best)) Merge(best);
    }
    return std::move(nodes_);
  }

 private:
  bool UsesHistograms() const { return strategy_.color || strategy_.texture; }
  bool IsLive(const Pair& pair) const { return slots_[pair.first] >= 0 && slots_[pair.second] >= 0; }

  void SetShares(int32_t region) {
    if (!UsesHistograms()) return;
    const int64_t at = slots_[region] * layout_.bins();
    const float scale = static_cast<float>(kFullShare) / static_cast<float>(sizes_[region]);
    Normalize(counts_.data() + at + begin_, end_ - begin_, scale, shares_.data() + at + begin_);
  }

  // The sum of the strategy's similarities, in units of 1 / (unit_ * pixels_). These are integers below 2^52, so the
  // result does not depend on the order of additions.
  int64_t Similarity(int32_t a, int32_t b) const {
    int64_t sum = 0;
    const int16_t *shares_a = shares_.data() + slots_[a] * layout_.bins(),
                  *shares_b = shares_.data() + slots_[b] * layout_.bins();
    if (strategy_.color) sum += kDirections * pixels_ * Intersection(shares_a, shares_b, layout_.color());
    if (strategy_.texture) {
      const int64_t at = layout_.color();
      sum += pixels_ * Intersection(shares_a + at, shares_b + at, layout_.texture());
    }
    const int64_t size = static_cast<int64_t>(sizes_[a]) + sizes_[b];
    if (strategy_.size) sum += unit_ * (pixels_ - size);
    if (strategy_.fill) sum += unit_ * (pixels_ - (Union(nodes_[a].box, nodes_[b].box).area() - size));
    return sum;
  }

  void Connect(int32_t a, int32_t b) {
    neighbors_[a].push_back(b);
    neighbors_[b].push_back(a);
    heap_.push_back({Similarity(a, b), std::min(a, b), std::max(a, b)});
  }

  void Merge(const Pair& pair) {
    const auto [similarity, a, b] = pair;
    const auto merged = static_cast<int32_t>(nodes_.size());
    nodes_.push_back({Union(nodes_[a].box, nodes_[b].box), std::max(nodes_[a].level, nodes_[b].level) + 1, a, b});
    sizes_.push_back(sizes_[a] + sizes_[b]);
    slots_.push_back(slots_[a]);
    if (UsesHistograms()) {
      const int64_t bins = layout_.bins();
      AddCounts(counts_.data() + slots_[b] * bins, bins, counts_.data() + slots_[a] * bins);
    }
    slots_[a] = slots_[b] = -1;
    SetShares(merged);
    ConnectMerged(a, b, merged);
    if (heap_.size() > heap_limit_) RemoveMerged();
  }

  void ConnectMerged(int32_t a, int32_t b, int32_t merged) {
    neighbors_.emplace_back();
    for (const int32_t part : {a, b}) {
      const std::vector<int32_t> of_part = std::move(neighbors_[part]);
      for (const int32_t other : of_part) {
        if (slots_[other] < 0 || marks_[other] == merged) continue;
        marks_[other] = merged;
        Connect(merged, other);
        std::push_heap(heap_.begin(), heap_.end());
      }
    }
  }

  // Removes pairs and neighbours that were merged, once they may be half of what is stored, so that memory stays
  // proportional to the number of regions.
  void RemoveMerged() {
    const auto is_over = [this](const Pair& pair) { return !IsLive(pair); };
    heap_.erase(std::remove_if(heap_.begin(), heap_.end(), is_over), heap_.end());
    std::make_heap(heap_.begin(), heap_.end());
    heap_limit_ = 2 * heap_.size() + kMinHeapLimit;
    const auto is_merged = [this](int32_t region) { return slots_[region] < 0; };
    for (std::vector<int32_t>& list : neighbors_) {
      list.erase(std::remove_if(list.begin(), list.end(), is_merged), list.end());
      list.shrink_to_fit();
    }
  }

  const Strategy strategy_;
  const HistogramLayout layout_;
  const int64_t pixels_, unit_;
  const int64_t begin_, end_;  // the range of bins that the strategy uses
  std::vector<Node> nodes_;
  std::vector<int32_t> sizes_;
  std::vector<std::vector<int32_t>> neighbors_;
  // The index of a region's histogram; -1 for a region that was merged.
  std::vector<int64_t> slots_;
  std::vector<uint32_t> counts_;
  std::vector<int16_t> shares_;
  std::vector<Pair> heap_;
  std::vector<int32_t> marks_;
  size_t heap_limit_ = kMinHeapLimit;
};

}  // namespace

std::vector<Node> GroupRegions(const Regions& regions, const Strategy& strategy) {
  return Grouping(regions, strategy).Run();
}

}  // namespace selective_search
}  // namespace tf_fast_rcnn

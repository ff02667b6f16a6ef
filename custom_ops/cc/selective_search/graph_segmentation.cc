#include "graph_segmentation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_set>

#include "vector_loops.h"

namespace tf_fast_rcnn {
namespace selective_search {
namespace {

// sqrt(3) * 255 * kSmoothUnit, rounded up.
constexpr int kNumWeights = 56535;

// Computes the weights of the edges from `from` to `to`, arrays of `count` values per channel.
TF_FAST_RCNN_VECTOR_LOOPS
void ComputeWeightsOfThreeChannels(const int16_t* const from[3], const int16_t* const to[3], int64_t count,
                                   uint16_t* weights) {
  const int16_t *from0 = from[0], *from1 = from[1], *from2 = from[2], *to0 = to[0], *to1 = to[1], *to2 = to[2];
  for (int64_t i = 0; i < count; ++i) {
    const int32_t d0 = from0[i] - to0[i], d1 = from1[i] - to1[i], d2 = from2[i] - to2[i];
    // The sum of two squares fits in 31 bits.
    const float square = static_cast<float>(d0 * d0 + d1 * d1) + static_cast<float>(d2 * d2);
    weights[i] = static_cast<uint16_t>(static_cast<int32_t>(std::sqrt(square)));
  }
}

TF_FAST_RCNN_VECTOR_LOOPS
void ComputeWeightsOfOneChannel(const int16_t* from, const int16_t* to, int64_t count, uint16_t* weights) {
  for (int64_t i = 0; i < count; ++i) weights[i] = static_cast<uint16_t>(std::abs(from[i] - to[i]));
}

void ComputeWeights(const SmoothPlanes& smooth, int64_t pixel, int64_t step, int64_t count, uint16_t* weights) {
  if (smooth.channels == 1) {
    const int16_t* from = smooth.plane(0) + pixel;
    return ComputeWeightsOfOneChannel(from, from + step, count, weights);
  }
  const int16_t *from[3], *to[3];
  for (int channel = 0; channel < 3; ++channel) {
    from[channel] = smooth.plane(channel) + pixel;
    to[channel] = from[channel] + step;
  }
  ComputeWeightsOfThreeChannels(from, to, count, weights);
}

// Calls visit(weight, number) for all edges of a row of pixels, in ascending order of their numbers.
template <typename Visit>
void VisitRow(const uint16_t* right, const uint16_t* down, int64_t first_pixel, int64_t width, bool last_row,
              Visit visit) {
  for (int64_t x = 0; x < width; ++x) {
    const uint32_t number = static_cast<uint32_t>(2 * (first_pixel + x));
    if (x + 1 < width) visit(right[x], number);
    if (!last_row) visit(down[x], number + 1);
  }
}

struct Edge {
  int32_t from, to;
};

Edge EdgeOfNumber(uint32_t number, int64_t width) {
  const int32_t from = static_cast<int32_t>(number >> 1);
  return {from, from + static_cast<int32_t>(number & 1 ? width : 1)};
}

// Calls visit(weight, number, a, b) for each edge, from light to heavy, whose pixels have different roots a and b when
// it is reached.
template <typename Visit>
void VisitEdgesBetweenSegments(const SortedEdges& edges, Forest* forest, Visit visit) {
  for (int32_t weight = 0; weight + 1 < static_cast<int32_t>(edges.first.size()); ++weight) {
    for (uint32_t i = edges.first[weight]; i < edges.first[weight + 1]; ++i) {
      const Edge edge = EdgeOfNumber(edges.numbers[i], edges.width);
      const int32_t a = forest->Root(edge.from), b = forest->Root(edge.to);
      if (a != b) visit(weight, edges.numbers[i], a, b);
    }
  }
}

// Merges segments along the edges from light to heavy. Returns the edges that remain between segments, in the same
// order.
std::vector<uint32_t> MergeSegments(const SortedEdges& edges, int64_t k, Forest* forest) {
  std::vector<uint32_t> between;
  VisitEdgesBetweenSegments(edges, forest, [&](int32_t weight, uint32_t number, int32_t a, int32_t b) {
    if (forest->Accepts(a, weight, k) && forest->Accepts(b, weight, k)) {
      forest->Merge(a, b, weight);
    } else {
      between.push_back(number);
    }
  });
  return between;
}

// Merges segments as long as this k and every larger k lead to the same merges. Two segments that this k keeps apart
// might be merged by a larger k: from then on they are unsettled, and so is every segment with an edge to an unsettled
// one. An unsettled segment does not change any more. Returns the edges to unsettled segments.
SortedEdges MergeSettled(const SortedEdges& edges, int64_t k, Forest* forest) {
  constexpr uint16_t kUnsettled = 65535;  // larger than any weight
  std::vector<std::pair<int32_t, uint16_t>> last_weights;
  const auto unsettle = [&](int32_t root) {
    if (forest->LastWeight(root) == kUnsettled) return;
    last_weights.emplace_back(root, forest->LastWeight(root));
    forest->SetLastWeight(root, kUnsettled);
  };
  SortedEdges later = {edges.height, edges.width, {}, std::vector<uint32_t>(edges.first.size(), 0)};
  VisitEdgesBetweenSegments(edges, forest, [&](int32_t weight, uint32_t number, int32_t a, int32_t b) {
    const bool settled = forest->LastWeight(a) != kUnsettled && forest->LastWeight(b) != kUnsettled;
    if (settled && forest->Accepts(a, weight, k) && forest->Accepts(b, weight, k)) {
      forest->Merge(a, b, weight);
    } else {
      unsettle(a);
      unsettle(b);
      later.numbers.push_back(number);
      ++later.first[weight + 1];
    }
  });
  for (const auto& [root, weight] : last_weights) forest->SetLastWeight(root, weight);
  std::partial_sum(later.first.begin(), later.first.end(), later.first.begin());
  return later;
}

void MergeSmall(const std::vector<uint32_t>& between, int64_t width, int32_t min_size, Forest* forest) {
  for (const uint32_t number : between) {
    const Edge edge = EdgeOfNumber(number, width);
    const int32_t a = forest->Root(edge.from), b = forest->Root(edge.to);
    if (a != b && (forest->Size(a) < min_size || forest->Size(b) < min_size)) forest->Merge(a, b, 0);
  }
}

void NumberSegments(Forest* forest, Segmentation* segmentation) {
  std::vector<int32_t>& labels = segmentation->labels;
  std::vector<int32_t> label_of_root(labels.size(), -1);
  int32_t previous_root = -1, label = -1;
  for (size_t pixel = 0; pixel < labels.size(); ++pixel) {
    const int32_t root = forest->Root(static_cast<int32_t>(pixel));
    if (root != previous_root) {
      if (label_of_root[root] < 0) label_of_root[root] = segmentation->segments++;
      label = label_of_root[root];
      previous_root = root;
    }
    labels[pixel] = label;
  }
}

// Every pair of adjacent pixels of different segments has an edge in `between`.
void FindNeighbors(const std::vector<uint32_t>& between, int64_t width, Segmentation* segmentation) {
  std::unordered_set<uint64_t> pairs;
  for (const uint32_t number : between) {
    const Edge edge = EdgeOfNumber(number, width);
    const auto [low, high] = std::minmax(segmentation->labels[edge.from], segmentation->labels[edge.to]);
    if (low != high) pairs.insert(static_cast<uint64_t>(low) << 32 | static_cast<uint32_t>(high));
  }
  for (const uint64_t pair : pairs) segmentation->neighbors.emplace_back(pair >> 32, static_cast<int32_t>(pair));
  std::sort(segmentation->neighbors.begin(), segmentation->neighbors.end());
}

}  // namespace

SortedEdges SortEdges(const SmoothPlanes& smooth) {
  const int64_t height = smooth.height, width = smooth.width, pixels = smooth.pixels();
  std::vector<uint16_t> right(pixels), down(pixels);
  SortedEdges edges = {height, width, {}, std::vector<uint32_t>(kNumWeights + 1, 0)};
  for (int64_t y = 0; y < height; ++y) {
    const int64_t pixel = y * width;
    const bool last_row = y + 1 == height;
    ComputeWeights(smooth, pixel, 1, width - 1, right.data() + pixel);
    if (!last_row) ComputeWeights(smooth, pixel, width, width, down.data() + pixel);
    VisitRow(right.data() + pixel, down.data() + pixel, pixel, width, last_row,
             [&](uint16_t weight, uint32_t) { ++edges.first[weight + 1]; });
  }
  std::partial_sum(edges.first.begin(), edges.first.end(), edges.first.begin());
  edges.numbers.resize(edges.first[kNumWeights]);
  std::vector<uint32_t> next(edges.first.begin(), edges.first.end() - 1);
  for (int64_t y = 0; y < height; ++y) {
    const int64_t pixel = y * width;
    VisitRow(right.data() + pixel, down.data() + pixel, pixel, width, y + 1 == height,
             [&](uint16_t weight, uint32_t number) { edges.numbers[next[weight]++] = number; });
  }
  return edges;
}

std::vector<Growth> GrowTogether(SortedEdges edges, const std::vector<int32_t>& ks) {
  std::vector<Growth> growths;
  Forest forest(edges.pixels());
  for (const int32_t k : ks) {
    edges = MergeSettled(edges, static_cast<int64_t>(k) * kSmoothUnit, &forest);
    growths.push_back({forest, edges});
  }
  return growths;
}

Segmentation SegmentGraph(Growth growth, int32_t k, int32_t min_size) {
  auto& [forest, edges] = growth;
  const std::vector<uint32_t> between = MergeSegments(edges, static_cast<int64_t>(k) * kSmoothUnit, &forest);
  MergeSmall(between, edges.width, min_size, &forest);
  Segmentation segmentation;
  segmentation.labels.resize(edges.pixels());
  NumberSegments(&forest, &segmentation);
  FindNeighbors(between, edges.width, &segmentation);
  return segmentation;
}

}  // namespace selective_search
}  // namespace tf_fast_rcnn

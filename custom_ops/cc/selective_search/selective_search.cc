#include "selective_search.h"

#include <algorithm>
#include <utility>

#include "ranking.h"
#include "smoothing.h"
#include "texture.h"

namespace tf_fast_rcnn {
namespace selective_search {
namespace {

constexpr Strategy kAll = {true, true, true, true};
constexpr Strategy kWithoutColor = {false, true, true, true};
constexpr Strategy kFill = {false, false, false, true};
constexpr Strategy kSize = {false, false, true, false};

// Everything that is computed for one colour space.
struct Search {
  Planes planes;
  std::vector<uint8_t> texture_codes;
  std::vector<Growth> growths;
  std::vector<Segmentation> segmentations;
  std::vector<Regions> regions;
  std::vector<std::vector<Node>> hierarchies;
};

void PrepareSpace(const Planes& rgb, ColorSpace space, const std::vector<int32_t>& ks, Search* search) {
  search->planes = ConvertColor(rgb, space);
  const SmoothPlanes smooth = Smooth(search->planes);
  search->texture_codes = TextureCodes(smooth);
  search->growths = GrowTogether(SortEdges(smooth), ks);
}

void Describe(Search* search) {
  search->regions = DescribeRegions(search->planes, search->texture_codes, std::move(search->segmentations));
  search->texture_codes = {};
  search->planes = {};
}

// Searches the colour spaces [first, last), one step at a time for all of them, so that threads share every step.
void SearchSpaces(const Planes& rgb, const Mode& mode, int64_t first, int64_t last, const ParallelFor& parallel_for,
                  std::vector<Box>* boxes) {
  const auto spaces = last - first, ks = static_cast<int64_t>(mode.ks.size());
  const auto strategies = static_cast<int64_t>(mode.strategies.size());
  std::vector<Search> searches(spaces);
  for (Search& search : searches) {
    search.segmentations.resize(ks);
    search.hierarchies.resize(ks * strategies);
  }
  parallel_for(spaces, [&](int64_t i) { PrepareSpace(rgb, mode.spaces[first + i], mode.ks, &searches[i]); });
  parallel_for(spaces * ks, [&](int64_t i) {
    Search& search = searches[i / ks];
    search.segmentations[i % ks] = SegmentGraph(std::move(search.growths[i % ks]), mode.ks[i % ks], kMinSegment);
  });
  parallel_for(spaces, [&](int64_t i) { Describe(&searches[i]); });
  parallel_for(spaces * ks * strategies, [&](int64_t i) {
    Search& search = searches[i / (ks * strategies)];
    const int64_t hierarchy = i % (ks * strategies);
    search.hierarchies[hierarchy] =
        GroupRegions(search.regions[hierarchy / strategies], mode.strategies[hierarchy % strategies]);
  });
  for (const Search& search : searches) {
    for (const std::vector<Node>& nodes : search.hierarchies) {
      for (const Node& node : nodes) boxes->push_back(node.box);
    }
  }
}

Search SegmentOne(const RgbImage& image, ColorSpace space, int32_t k, int32_t min_segment) {
  Search search;
  PrepareSpace(SplitChannels(image.values, image.height, image.width), space, {k}, &search);
  search.segmentations.push_back(SegmentGraph(std::move(search.growths.front()), k, min_segment));
  return search;
}

}  // namespace

const Mode& FastMode() {
  static const Mode mode = {{ColorSpace::kHsv, ColorSpace::kLab}, {150, 300, 450}, {kAll, kWithoutColor}};
  return mode;
}

const Mode& QualityMode() {
  static const Mode mode = {
      {ColorSpace::kHsv, ColorSpace::kLab, ColorSpace::kGray, ColorSpace::kHue, ColorSpace::kRedGreen},
      {150, 300, 450, 600, 750},
      {kAll, kWithoutColor, kFill, kSize}};
  return mode;
}

Proposals SelectiveSearch(const RgbImage& image, const Options& options, int threads, const ParallelFor& parallel_for) {
  RgbImage searched = FitWithin(image, options.max_side);
  std::vector<uint8_t> shrunk;
  if (searched.values == nullptr) {
    shrunk = Shrink(image, searched.height, searched.width);
    searched.values = shrunk.data();
  }
  const Planes rgb = SplitChannels(searched.values, searched.height, searched.width);
  std::vector<Box> boxes;
  const auto spaces = static_cast<int64_t>(options.mode->spaces.size());
  const int64_t at_once = std::clamp<int64_t>(threads, 1, spaces);
  for (int64_t first = 0; first < spaces; first += at_once) {
    SearchSpaces(rgb, *options.mode, first, std::min(first + at_once, spaces), parallel_for, &boxes);
  }
  const double min_side = options.min_size * static_cast<double>(std::min(searched.height, searched.width));
  return {searched.height, searched.width, RankBoxes(std::move(boxes), options.seed, min_side, options.max_boxes)};
}

void WriteRelative(const Proposals& proposals, float* boxes) {
  const auto height = static_cast<float>(proposals.height), width = static_cast<float>(proposals.width);
  for (const Box& box : proposals.boxes) {
    *boxes++ = static_cast<float>(box.top) / height;
    *boxes++ = static_cast<float>(box.left) / width;
    *boxes++ = static_cast<float>(box.bottom) / height;
    *boxes++ = static_cast<float>(box.right) / width;
  }
}

Segmentation SegmentImage(const RgbImage& image, ColorSpace space, int32_t k, int32_t min_segment) {
  return std::move(SegmentOne(image, space, k, min_segment).segmentations.front());
}

std::vector<Node> GroupImage(const RgbImage& image, ColorSpace space, int32_t k, int32_t min_segment,
                             const Strategy& strategy) {
  Search search = SegmentOne(image, space, k, min_segment);
  Describe(&search);
  return GroupRegions(search.regions.front(), strategy);
}

}  // namespace selective_search
}  // namespace tf_fast_rcnn

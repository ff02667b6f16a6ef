#include "regions.h"

#include <unordered_map>

#include "texture.h"
#include "vector_loops.h"

namespace tf_fast_rcnn {
namespace selective_search {
namespace {

// The intersections of all segmentations of an image. Histograms are counted per part and then summed per region, so
// that the image is read once for all segmentations.
struct Parts {
  std::vector<int32_t> of_pixel;
  int32_t number = 0;
};

// Intersects the parts with another segmentation; updates `regions_of_parts`, the region of each part for every
// segmentation so far.
void IntersectWith(const std::vector<int32_t>& labels, Parts* parts,
                   std::vector<std::vector<int32_t>>* regions_of_parts) {
  std::unordered_map<uint64_t, int32_t> numbers;
  std::vector<std::vector<int32_t>> divided(regions_of_parts->size() + 1);
  int32_t previous_part = -1, previous_label = -1, number = -1;
  for (size_t pixel = 0; pixel < labels.size(); ++pixel) {
    const int32_t part = parts->of_pixel[pixel], label = labels[pixel];
    if (part != previous_part || label != previous_label) {
      const uint64_t key = static_cast<uint64_t>(part) << 32 | static_cast<uint32_t>(label);
      const auto [found, is_new] = numbers.try_emplace(key, static_cast<int32_t>(numbers.size()));
      number = found->second;
      if (is_new) {
        for (size_t i = 0; i < regions_of_parts->size(); ++i) divided[i].push_back((*regions_of_parts)[i][part]);
        divided.back().push_back(label);
      }
      previous_part = part;
      previous_label = label;
    }
    parts->of_pixel[pixel] = number;
  }
  parts->number = static_cast<int32_t>(numbers.size());
  *regions_of_parts = std::move(divided);
}

// Computes the sizes and boxes of the parts, one run of a row at a time.
void Measure(const Parts& parts, int64_t height, int64_t width, std::vector<int32_t>* sizes, std::vector<Box>* boxes) {
  sizes->assign(parts.number, 0);
  boxes->assign(parts.number, Box());
  for (int64_t y = 0; y < height; ++y) {
    const int32_t* row = parts.of_pixel.data() + y * width;
    for (int64_t begin = 0, end; begin < width; begin = end) {
      end = begin + 1;
      while (end < width && row[end] == row[begin]) ++end;
      (*sizes)[row[begin]] += static_cast<int32_t>(end - begin);
      Box& box = (*boxes)[row[begin]];
      const auto y32 = static_cast<int32_t>(y);
      box = Union(box, {y32, static_cast<int32_t>(begin), y32 + 1, static_cast<int32_t>(end)});
    }
  }
}

// Counts the pixels of each part by colour bin and texture code of every channel; returns [parts, channels *
// (kColorBins + kAxes * kTextureCodes)].
std::vector<uint32_t> CountCodes(const Parts& parts, const Planes& planes, const std::vector<uint8_t>& codes) {
  const int64_t pixels = planes.pixels(), channels = planes.channels;
  const int64_t stride = channels * (kColorBins + kAxes * kTextureCodes);
  std::vector<uint32_t> counts(parts.number * stride);
  for (int64_t channel = 0; channel < channels; ++channel) {
    const uint8_t *colors = planes.plane(channel), *right = codes.data() + channel * kAxes * pixels;
    const uint8_t *down = right + pixels, *falling = down + pixels, *rising = falling + pixels;
    const int64_t of_color = channel * kColorBins;
    const int64_t of_texture = channels * kColorBins + channel * kAxes * kTextureCodes;
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      uint32_t* of_part = counts.data() + parts.of_pixel[pixel] * stride;
      ++of_part[of_color + colors[pixel] * kColorBins / 256];
      uint32_t* texture = of_part + of_texture;
      ++texture[right[pixel]];
      ++texture[kTextureCodes + down[pixel]];
      ++texture[2 * kTextureCodes + falling[pixel]];
      ++texture[3 * kTextureCodes + rising[pixel]];
    }
  }
  return counts;
}

TF_FAST_RCNN_VECTOR_LOOPS
void Add(const uint32_t* from, int64_t count, uint32_t* to) {
  for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

// Converts counts by texture code to histograms per direction: where a derivative is negative, the derivative along its
// axis counts as 0.
void SplitAxes(const uint32_t* by_code, const HistogramLayout& layout, uint32_t* histogram) {
  std::copy_n(by_code, layout.color(), histogram);
  by_code += layout.color();
  histogram += layout.color();
  for (int64_t axis = 0; axis < layout.channels * kAxes; ++axis) {
    const uint32_t *positive = by_code, *negative = by_code + kTextureBins;
    uint32_t *forward = histogram, *backward = histogram + kTextureBins;
    for (int bin = 0; bin < kTextureBins; ++bin) {
      forward[bin] += positive[bin];
      forward[0] += negative[bin];
      backward[bin] += negative[bin];
      backward[0] += positive[bin];
    }
    by_code += kTextureCodes;
    histogram += kTextureCodes;
  }
}

}  // namespace

int64_t HistogramLayout::texture() const { return channels * kDirections * kTextureBins; }

std::vector<Regions> DescribeRegions(const Planes& planes, const std::vector<uint8_t>& codes,
                                     std::vector<Segmentation> segmentations) {
  Parts parts = {std::vector<int32_t>(planes.pixels(), 0), 1};
  std::vector<std::vector<int32_t>> regions_of_parts;
  for (Segmentation& segmentation : segmentations) {
    IntersectWith(segmentation.labels, &parts, &regions_of_parts);
    segmentation.labels = {};
  }
  std::vector<int32_t> sizes;
  std::vector<Box> boxes;
  Measure(parts, planes.height, planes.width, &sizes, &boxes);
  const std::vector<uint32_t> counts = CountCodes(parts, planes, codes);
  std::vector<Regions> described;
  for (size_t i = 0; i < segmentations.size(); ++i) {
    const int32_t number = segmentations[i].segments;
    Regions regions = {planes.pixels(),
                       {planes.channels},
                       std::vector<int32_t>(number),
                       std::vector<Box>(number),
                       {},
                       std::move(segmentations[i].neighbors)};
    const int64_t bins = regions.layout.bins();
    std::vector<uint32_t> by_code(number * bins);
    for (int32_t part = 0; part < parts.number; ++part) {
      const int32_t region = regions_of_parts[i][part];
      regions.sizes[region] += sizes[part];
      regions.boxes[region] = Union(regions.boxes[region], boxes[part]);
      Add(counts.data() + part * bins, bins, by_code.data() + region * bins);
    }
    regions.counts.resize(number * bins);
    for (int32_t region = 0; region < number; ++region) {
      SplitAxes(by_code.data() + region * bins, regions.layout, regions.counts.data() + region * bins);
    }
    described.push_back(std::move(regions));
  }
  return described;
}

}  // namespace selective_search
}  // namespace tf_fast_rcnn

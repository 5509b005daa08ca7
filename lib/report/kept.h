#pragma once
// What is left of a model beside what it was cut from, block by block and axis by axis: a picture of characters for terminals and one in
// SVG. The same data gives the same bytes.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace slmc::report {

struct Share {                            // entries of an axis; was 0: there was nothing to keep
  std::int64_t now = 0, was = 0;
  bool operator==(const Share&) const = default;
};

struct KeptBlock {
  std::int64_t number = 0;                // in the model that was cut
  bool there = true;                      // else the shares say nothing
  Share kv, heads, ffn;                   // key/value groups, query heads, feed-forward channels; now 0: that part is gone
};

struct Kept {
  std::string title;
  std::vector<KeptBlock> blocks;          // all of the model that was cut, in its order
  std::vector<std::pair<std::string, Share>> whole;      // axes of the whole model: "blocks", "hidden", "vocab"
  bool which_known = true;                // false: how many blocks go is known, which ones is not; those that stay stand first
};

bool anything_went(const Kept& kept);     // or grew

// At most 80 columns. A line for each block, or for a run of neighbours that are alike; then the axes of the whole model:
//   blocks  groups  query heads      feed-forward
//   0-11       3/3  ██████████  9/9  ████████████████████ 1536/1536
//   12        gone
std::string text(const Kept& kept);

// 720 wide: a column for each block, a lane for each axis inside blocks, bars for the axes of the whole model.
std::string svg(const Kept& kept);

}  // namespace slmc::report

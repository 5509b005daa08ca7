#pragma once
// A container is a bijection from stored elements to logical ones. Each pair (stored tensor, logical tensor
// in it) is a few nested loops: for every coordinate, stored offset and logical offset advance by fixed
// strides. Found by matching leaves (dim.h) by their axes. (L1) the stored tensors of a container cover each
// element of each logical tensor exactly once (`covering_problem`).
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/tensor_data.h"
#include "ir/model.h"
#include "ir/template.h"

namespace slmc::ir {

struct Loop {
  std::int64_t size = 1, stored = 1, logical = 1;  // strides in elements
};

struct Piece {
  std::int64_t stored = 0, logical = 0;  // offsets in elements
  std::vector<Loop> loops;               // outermost first; the innermost is contiguous in both when possible
  std::int64_t count() const;
};

struct Part {
  std::string tensor;  // logical name with its block number
  std::vector<Piece> pieces;
};

struct StoredTensor {
  std::string name;
  std::int64_t block = -1;
  std::vector<std::int64_t> shape;
  double add = 0;
  std::vector<Part> parts;
};

std::string with_block(std::string_view name, std::int64_t block);  // "{block}" replaced
SizeOf sizes_in(const Sizes& sizes, std::int64_t block);  // sizes of the axes inside a block (-1: outside)

// Logical tensors of a template at given sizes, in forward order. Parts of blocks that are absent are left
// out, and what `exists` (given the logical name) says no to.
std::vector<TensorSpec> logical_tensors(const Template& arch, const Sizes& sizes,
                                        const std::function<bool(const std::string&)>& exists);

// One stored tensor at given sizes. Error(Recipe) when its layout does not name the axes of its logical
// tensors.
StoredTensor place(const StoredSpec& spec, const Template& arch, const Sizes& sizes, std::int64_t block);

// Whether it would hold nothing but a part that its block lacks (model.h, M2).
bool is_absent(const StoredTensor& stored, const Sizes& sizes);

// "" or what is wrong: a logical element without, or with two, stored elements.
std::string covering_problem(const std::vector<StoredTensor>& stored, const std::vector<TensorSpec>& logical);

// Is the part the whole stored tensor, or a contiguous run of it, in the same order? Gives the first stored
// element.
std::optional<std::int64_t> contiguous_run(const Part& part);
// Do whole rows of `columns` elements move, columns staying in order? Then quantized rows can move undecoded.
bool moves_rows(const Part& part, std::int64_t stored_columns, std::int64_t logical_columns);

// Calls copy(stored, logical, run) for runs of elements that lie side by side in both forms.
void visit_runs(const Part& part,
                const std::function<void(std::int64_t stored, std::int64_t logical, std::int64_t run)>& copy);
// Copies elements of `size` bytes (1, 2, 4, 8) between the two forms.
void gather(const Part& part, std::size_t size, std::span<const std::byte> stored,
            std::span<std::byte> logical);
void scatter(const Part& part, std::size_t size, std::span<const std::byte> logical,
             std::span<std::byte> stored);
// The same for units of `unit` elements: rows of a quantized tensor, where codes and scales have different
// widths.
Part in_units(const Part& part, std::int64_t unit);

}  // namespace slmc::ir

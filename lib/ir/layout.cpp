#include "ir/layout.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "core/bytes.h"
#include "core/error.h"

namespace slmc::ir {
namespace {

constexpr std::size_t kMostCells = 4096;  // far above any real layout; dimensions multiply

// One product of leaves, one per dimension: axis -> (size, stride in elements of the whole tensor).
struct Cell {
  std::string tensor;
  std::int64_t offset = 0;
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> axes;
};

std::vector<Cell> cells_of(const std::vector<Dim>& dims, const SizeOf& size_of, const std::string& where) {
  std::vector<std::int64_t> sizes;
  for (const Dim& d : dims) sizes.push_back(d.size(size_of));
  std::vector<Cell> cells(1);
  for (std::size_t d = 0; d < dims.size(); ++d) {
    std::int64_t unit = 1;
    for (std::size_t later = d + 1; later < dims.size(); ++later) unit *= sizes[later];
    std::vector<Cell> crossed;
    for (const Cell& cell : cells)
      for (const Leaf& leaf : dims[d].leaves(size_of)) {
        Cell next = cell;
        if (!leaf.tensor.empty()) next.tensor = leaf.tensor;
        next.offset += leaf.offset * unit;
        for (std::size_t a = 0; a < leaf.axes.size(); ++a)
          if (!next.axes.emplace(leaf.axes[a], std::pair(leaf.sizes[a], leaf.strides[a] * unit)).second)
            throw Error(ErrorKind::Recipe, where + ": an axis must stand once in a product, but '" +
                                               leaf.axes[a] + "' stands twice");
        crossed.push_back(std::move(next));
        if (crossed.size() > kMostCells)
          throw Error(ErrorKind::Recipe, where + ": a layout must have at most 4096 parts, but has more");
      }
    cells = std::move(crossed);
  }
  return cells;
}

// Sorts loops outermost first by logical stride and joins neighbours that run on in both forms.
std::vector<Loop> joined(std::vector<Loop> loops) {
  std::erase_if(loops, [](const Loop& l) { return l.size == 1; });
  std::sort(loops.begin(), loops.end(), [](const Loop& a, const Loop& b) { return a.logical > b.logical; });
  std::vector<Loop> result;
  for (const Loop& l : loops) {
    if (!result.empty() && result.back().stored == l.size * l.stored &&
        result.back().logical == l.size * l.logical) {
      result.back() = {result.back().size * l.size, l.stored, l.logical};
      continue;
    }
    result.push_back(l);
  }
  return result;
}

const LogicalSpec* find_logical(const Template& arch, std::string_view name) {
  for (const LogicalSpec& l : arch.tensors)
    if (l.name == name) return &l;
  return nullptr;
}

template <class Copy>
void walk(const std::vector<Loop>& loops, std::size_t depth, std::int64_t stored, std::int64_t logical,
          const Copy& copy) {
  if (depth == loops.size()) return copy(stored, logical);
  const Loop& l = loops[depth];
  for (std::int64_t i = 0; i < l.size; ++i)
    walk(loops, depth + 1, stored + i * l.stored, logical + i * l.logical, copy);
}

// Calls copy(stored, logical, run): run elements that lie side by side in both.
template <class Copy>
void for_runs(const Part& part, const Copy& copy) {
  for (const Piece& piece : part.pieces) {
    std::vector<Loop> loops = piece.loops;
    std::int64_t run = 1;
    if (!loops.empty() && loops.back().stored == 1 && loops.back().logical == 1) {
      run = loops.back().size;
      loops.pop_back();
    }
    walk(loops, 0, piece.stored, piece.logical, [&](std::int64_t s, std::int64_t l) { copy(s, l, run); });
  }
}

void copy_element(std::size_t size, const std::byte* from, std::byte* to) {
  switch (size) {
    case 1: std::memcpy(to, from, 1); break;
    case 2: std::memcpy(to, from, 2); break;
    case 4: std::memcpy(to, from, 4); break;
    default: std::memcpy(to, from, 8); break;
  }
}

void copy_part(const Part& part, std::size_t size, const std::byte* from, std::byte* to, bool forward) {
  for_runs(part, [&](std::int64_t s, std::int64_t l, std::int64_t run) {
    const std::byte* source = from + static_cast<std::size_t>(forward ? s : l) * size;
    std::byte* target = to + static_cast<std::size_t>(forward ? l : s) * size;
    if (run == 1)
      copy_element(size, source, target);
    else
      std::memcpy(target, source, static_cast<std::size_t>(run) * size);
  });
}

}  // namespace

std::int64_t Piece::count() const {
  std::int64_t n = 1;
  for (const Loop& l : loops) n *= l.size;
  return n;
}

std::string with_block(std::string_view name, std::int64_t block) {
  std::string result(name);
  for (std::size_t at = 0; (at = result.find("{block}", at)) != std::string::npos;)
    result.replace(at, 7, std::to_string(block));
  return result;
}

SizeOf sizes_in(const Sizes& sizes, std::int64_t block) {
  return [&sizes, block](std::string_view axis) { return sizes.of(axis, block); };
}

std::vector<TensorSpec> logical_tensors(const Template& arch, const Sizes& sizes,
                                        const std::function<bool(const std::string&)>& exists) {
  std::vector<TensorSpec> all;
  auto add = [&](const LogicalSpec& l, std::int64_t block) {
    TensorSpec spec;
    spec.name = with_block(l.name, block);
    spec.block = block;
    spec.dims = l.dims;
    if (!exists(spec.name)) return;
    std::int64_t count = 1;
    for (const Dim& d : l.dims) {
      spec.shape.push_back(d.size(sizes_in(sizes, block)));
      count *= spec.shape.back();
    }
    if (count > 0) all.push_back(std::move(spec));
  };
  auto in_block = [](const LogicalSpec& l) { return l.name.starts_with("block."); };
  std::size_t i = 0;
  for (; i < arch.tensors.size() && !in_block(arch.tensors[i]); ++i) add(arch.tensors[i], -1);
  for (std::size_t b = 0; b < sizes.blocks.size(); ++b) {
    const BlockSizes& block = sizes.blocks[b];
    for (const LogicalSpec& l : arch.tensors) {
      if (!in_block(l)) continue;
      if (l.name.find(".attn.") != std::string::npos && block.heads() == 0) continue;
      if (l.name.find(".ffn.") != std::string::npos && block.ffn == 0) continue;
      add(l, static_cast<std::int64_t>(b));
    }
    if (block.heads() > 0 && block.freq > 0) {
      static const Dim freq = Dim::parse("freq", "built in");
      TensorSpec rope;
      rope.name = with_block("block.{block}.attn.rope", static_cast<std::int64_t>(b));
      rope.block = static_cast<std::int64_t>(b);
      rope.dims = {freq};
      rope.shape = {block.freq};
      rope.stored_dtype = "F64";
      rope.derived = true;
      all.push_back(std::move(rope));
    }
  }
  for (; i < arch.tensors.size(); ++i)
    if (!in_block(arch.tensors[i])) add(arch.tensors[i], -1);
  return all;
}

StoredTensor place(const StoredSpec& spec, const Template& arch, const Sizes& sizes, std::int64_t block) {
  const SizeOf size_of = sizes_in(sizes, block);
  StoredTensor result;
  result.name = with_block(spec.name, block);
  result.block = block;
  result.add = spec.add;
  for (const Dim& d : spec.layout) result.shape.push_back(d.size(size_of));
  element_count(result.shape, result.name);  // no product below can overflow after this
  const std::string where = arch.file + " '" + spec.name + "'";
  std::map<std::string, std::vector<Cell>> logical_cells;
  for (const Cell& cell : cells_of(spec.layout, size_of, where)) {
    std::string pattern = cell.tensor.empty() ? spec.is : cell.tensor;
    if (!cell.tensor.empty() && block >= 0) pattern = "block.{block}." + pattern;
    const LogicalSpec* logical = find_logical(arch, pattern);
    if (!logical)
      throw Error(ErrorKind::Recipe,
                  where + ": a layout must name tensors of 'tensors', but names '" + pattern + "'");
    auto [known, fresh] = logical_cells.try_emplace(pattern);
    if (fresh) known->second = cells_of(logical->dims, size_of, where);
    const std::string name = with_block(pattern, block);
    auto part = std::find_if(result.parts.begin(), result.parts.end(),
                             [&](const Part& p) { return p.tensor == name; });
    if (part == result.parts.end()) part = result.parts.insert(result.parts.end(), Part{name, {}});
    const Cell* match = nullptr;
    for (const Cell& candidate : known->second) {
      auto same_axis = [](const auto& a, const auto& b) {
        return a.first == b.first && a.second.first == b.second.first;
      };
      if (candidate.axes.size() == cell.axes.size() &&
          std::equal(cell.axes.begin(), cell.axes.end(), candidate.axes.begin(), same_axis))
        match = &candidate;
    }
    if (!match)
      throw Error(ErrorKind::Recipe, where + ": each stored term must have the axes of a term of '" +
                                         pattern + "', but one has not");
    Piece piece{cell.offset, match->offset, {}};
    for (const auto& [axis, of] : cell.axes)
      piece.loops.push_back({of.first, of.second, match->axes.at(axis).second});
    piece.loops = joined(std::move(piece.loops));
    part->pieces.push_back(std::move(piece));
  }
  return result;
}

bool is_absent(const StoredTensor& stored, const Sizes& sizes) {
  if (stored.block < 0) return false;
  const BlockSizes& block = sizes.blocks[static_cast<std::size_t>(stored.block)];
  return std::all_of(stored.parts.begin(), stored.parts.end(), [&](const Part& part) {
    return (block.heads() == 0 && part.tensor.find(".attn.") != std::string::npos) ||
           (block.ffn == 0 && part.tensor.find(".ffn.") != std::string::npos);
  });
}

std::string covering_problem(const std::vector<StoredTensor>& stored,
                             const std::vector<TensorSpec>& logical) {
  // Pieces of one logical tensor have different sets of axes or offsets; equal start and count sum proves the
  // cover, because each logical cell is a whole product and is matched as a whole.
  struct Seen {
    std::int64_t elements = 0;
    std::vector<std::int64_t> offsets;
  };
  std::map<std::string, Seen> seen;
  for (const StoredTensor& s : stored)
    for (const Part& part : s.parts)
      for (const Piece& piece : part.pieces) {
        Seen& of = seen[part.tensor];
        of.elements += piece.count();
        if (std::find(of.offsets.begin(), of.offsets.end(), piece.logical) != of.offsets.end())
          return "'" + part.tensor + "' is stored twice";
        of.offsets.push_back(piece.logical);
      }
  for (const TensorSpec& spec : logical) {
    if (spec.derived) continue;
    std::int64_t count = 1;
    for (std::int64_t n : spec.shape) count *= n;
    const auto it = seen.find(spec.name);
    const std::int64_t have = it == seen.end() ? 0 : it->second.elements;
    if (have != count)
      return "'" + spec.name + "' must have " + std::to_string(count) + " stored elements, but has " +
             std::to_string(have);
    seen.erase(spec.name);
  }
  return seen.empty() ? "" : "'" + seen.begin()->first + "' is stored, but the model has no such tensor";
}

std::optional<std::int64_t> contiguous_run(const Part& part) {
  std::int64_t expected = 0;
  std::vector<const Piece*> ordered;
  for (const Piece& p : part.pieces) ordered.push_back(&p);
  std::sort(ordered.begin(), ordered.end(),
            [](const Piece* a, const Piece* b) { return a->logical < b->logical; });
  for (const Piece* p : ordered) {
    const bool one_run =
        p->loops.empty() || (p->loops.size() == 1 && p->loops[0].stored == 1 && p->loops[0].logical == 1);
    if (!one_run || p->logical != expected || p->stored != ordered[0]->stored + expected) return std::nullopt;
    expected += p->count();
  }
  return ordered.empty() ? std::nullopt : std::optional(ordered[0]->stored);
}

bool moves_rows(const Part& part, std::int64_t stored_columns, std::int64_t logical_columns) {
  if (stored_columns != logical_columns) return false;
  for (const Piece& p : part.pieces) {
    if (p.stored % stored_columns != 0 || p.logical % stored_columns != 0) return false;
    if (stored_columns == 1) continue;
    if (p.loops.empty()) return false;
    const Loop& inner = p.loops.back();
    if (inner.stored != 1 || inner.logical != 1 || inner.size % stored_columns != 0) return false;
    for (std::size_t i = 0; i + 1 < p.loops.size(); ++i)
      if (p.loops[i].stored % stored_columns != 0 || p.loops[i].logical % stored_columns != 0) return false;
  }
  return true;
}

Part in_units(const Part& part, std::int64_t unit) {
  Part result{part.tensor, {}};
  for (Piece p : part.pieces) {
    p.stored /= unit;
    p.logical /= unit;
    if (unit > 1) {
      for (std::size_t i = 0; i + 1 < p.loops.size(); ++i) {
        p.loops[i].stored /= unit;
        p.loops[i].logical /= unit;
      }
      p.loops.back().size /= unit;
    }
    result.pieces.push_back(std::move(p));
  }
  return result;
}

void visit_runs(
    const Part& part,
    const std::function<void(std::int64_t stored, std::int64_t logical, std::int64_t run)>& copy) {
  for_runs(part, copy);
}

void gather(const Part& part, std::size_t size, std::span<const std::byte> stored,
            std::span<std::byte> logical) {
  copy_part(part, size, stored.data(), logical.data(), true);
}

void scatter(const Part& part, std::size_t size, std::span<const std::byte> logical,
             std::span<std::byte> stored) {
  copy_part(part, size, logical.data(), stored.data(), false);
}

}  // namespace slmc::ir

// `take`: from axis names and lists to the kept entries of every dimension of every tensor.
#include <algorithm>
#include <charconv>
#include <numeric>
#include <set>

#include "core/error.h"
#include "ir/build.h"

namespace slmc::ir {
namespace {

// "block.3.kv.0.q" -> {3, "q", 0}; "hidden" -> {-1, "hidden", -1}.
struct AxisName {
  std::int64_t block = -1;
  std::string axis;
  std::int64_t group = -1;
};

std::optional<std::int64_t> number(std::string_view text) {
  std::int64_t n = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc() || end != text.data() + text.size() || n < 0) return std::nullopt;
  return n;
}

std::optional<AxisName> parse_axis(std::string_view name) {
  static const std::set<std::string, std::less<>> outer = {"vocab", "hidden", "pos", "block"},
                                                  inner = {"kv", "freq", "pass", "vd", "ffn"};
  if (outer.contains(name)) return AxisName{-1, std::string(name), -1};
  if (!name.starts_with("block.")) return std::nullopt;
  name.remove_prefix(6);
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::optional<std::int64_t> block = number(name.substr(0, dot));
  name.remove_prefix(dot + 1);
  if (!block) return std::nullopt;
  if (inner.contains(name)) return AxisName{*block, std::string(name), -1};
  if (!name.starts_with("kv.") || !name.ends_with(".q") || name.size() < 6) return std::nullopt;
  const std::optional<std::int64_t> group = number(name.substr(3, name.size() - 5));
  if (!group) return std::nullopt;
  return AxisName{*block, "q", *group};
}

std::vector<std::string> axis_names(const Sizes& sizes) {
  std::vector<std::string> names = {"vocab", "hidden", "pos", "block"};
  for (std::size_t b = 0; b < sizes.blocks.size(); ++b) {
    const std::string prefix = "block." + std::to_string(b) + ".";
    for (const char* axis : {"kv", "freq", "pass", "vd", "ffn"}) names.push_back(prefix + axis);
    for (std::int64_t g = 0; g < sizes.blocks[b].kv; ++g)
      names.push_back(prefix + "kv." + std::to_string(g) + ".q");
  }
  return names;
}

std::vector<std::int64_t> all_of(std::int64_t n) {
  std::vector<std::int64_t> v(static_cast<std::size_t>(n));
  std::iota(v.begin(), v.end(), 0);
  return v;
}

Index or_null(const std::vector<std::int64_t>& kept, std::int64_t size) {
  if (kept == all_of(size)) return nullptr;
  return std::make_shared<const std::vector<std::int64_t>>(kept);
}

// Checked lists of one base block.
struct BlockLists {
  std::map<std::string, std::vector<std::int64_t>> axis;
  std::map<std::int64_t, std::vector<std::int64_t>> q;
};

std::int64_t base_coordinate(const Index& kept, std::int64_t i) {
  return kept ? (*kept)[static_cast<std::size_t>(i)] : i;
}

Kept::Block kept_block(const BlockLists& lists, const BlockSizes& size, std::int64_t b,
                       std::vector<Violation>& violations) {
  const std::string prefix = "block." + std::to_string(b) + ".";
  const auto index = [&](const char* axis, std::int64_t n) {
    const auto it = lists.axis.find(axis);
    return it == lists.axis.end() ? Index{} : or_null(it->second, n);
  };
  Kept::Block kept;
  kept.kv = index("kv", size.kv);
  kept.freq = index("freq", size.freq);
  kept.pass = index("pass", size.pass);
  kept.vd = index("vd", size.vd);
  kept.ffn = index("ffn", size.ffn);
  if (size.heads() == 0) return kept;
  const bool attention_stays = !(kept.kv && kept.kv->empty());
  if (attention_stays && kept.vd && kept.vd->empty())
    violations.push_back({prefix + "vd", "a value must keep at least one entry, but keeps none", "1"});
  const std::int64_t freq = kept.freq ? static_cast<std::int64_t>(kept.freq->size()) : size.freq;
  const std::int64_t pass = kept.pass ? static_cast<std::int64_t>(kept.pass->size()) : size.pass;
  if (attention_stays && freq == 0 && pass == 0)
    violations.push_back({prefix + "freq", "a head must keep at least one entry, but keeps none", "1"});
  if (lists.q.empty()) return kept;
  const std::int64_t groups = kept.kv ? static_cast<std::int64_t>(kept.kv->size()) : size.kv;
  for (std::int64_t g = 0; g < groups; ++g) {
    const auto it = lists.q.find(base_coordinate(kept.kv, g));
    kept.q.push_back(it == lists.q.end() ? all_of(size.q) : it->second);
    if (kept.q.back().size() != kept.q.front().size()) {
      violations.push_back({prefix + "kv." + std::to_string(base_coordinate(kept.kv, g)) + ".q",
                            "all groups of a block must keep the same number of query heads, but one keeps " +
                                std::to_string(kept.q.front().size()) + " and another " +
                                std::to_string(kept.q.back().size()),
                            std::to_string(kept.q.front().size())});
      break;
    }
  }
  return kept;
}

}  // namespace

Kept kept_of(const Plan& plan, const Model& base, std::vector<Violation>& violations) {
  const Sizes& sizes = base.sizes();
  Kept kept;
  kept.blocks = all_of(base.blocks());
  std::map<std::int64_t, BlockLists> lists;
  for (const auto& [name, entries] : plan.take) {
    const std::optional<AxisName> axis = parse_axis(name);
    const bool known =
        axis && (axis->block < 0 ||
                 (axis->block < base.blocks() &&
                  (axis->group < 0 || axis->group < sizes.blocks[static_cast<std::size_t>(axis->block)].kv)));
    if (!known) {
      violations.push_back({name, "'take' must name axes of the base, but names '" + name + "'",
                            closest(name, axis_names(sizes))});
      continue;
    }
    const std::int64_t size = sizes.of(axis->axis, axis->block);
    const auto outside =
        std::find_if(entries.begin(), entries.end(), [&](std::int64_t i) { return i < 0 || i >= size; });
    if (outside != entries.end()) {
      violations.push_back({name,
                            "entries of " + name + " must be from 0 to " + std::to_string(size - 1) +
                                ", but one is " + std::to_string(*outside),
                            size > 0 ? std::to_string(size - 1) : ""});
      continue;
    }
    if (axis->block >= 0) {
      if (axis->group >= 0)
        lists[axis->block].q[axis->group] = entries;
      else
        lists[axis->block].axis[axis->axis] = entries;
      continue;
    }
    if (entries.empty() && size > 0) {
      violations.push_back(
          {name, "a model must keep at least one entry of " + name + ", but would keep none", "1"});
      continue;
    }
    if (axis->axis == "block") kept.blocks = entries;
    if (axis->axis == "hidden") kept.hidden = or_null(entries, size);
    if (axis->axis == "pos") kept.pos = or_null(entries, size);
    if (axis->axis == "vocab") {
      kept.vocab = or_null(entries, size);
      if (kept.vocab)
        for (Violation& v : vocabulary_violations(base, entries)) violations.push_back(std::move(v));
    }
  }
  for (const std::int64_t b : kept.blocks)
    kept.block.push_back(kept_block(lists[b], sizes.blocks[static_cast<std::size_t>(b)], b, violations));
  return kept;
}

Sizes sizes_after(const Sizes& base, const Kept& kept) {
  const auto size = [](const Index& index, std::int64_t n) {
    return index ? static_cast<std::int64_t>(index->size()) : n;
  };
  Sizes s;
  s.vocab = size(kept.vocab, base.vocab);
  s.hidden = size(kept.hidden, base.hidden);
  s.pos = size(kept.pos, base.pos);
  for (std::size_t i = 0; i < kept.blocks.size(); ++i) {
    BlockSizes b = base.blocks[static_cast<std::size_t>(kept.blocks[i])];
    const Kept::Block& k = kept.block[i];
    b.kv = size(k.kv, b.kv);
    if (!k.q.empty()) b.q = static_cast<std::int64_t>(k.q[0].size());
    b.freq = size(k.freq, b.freq);
    b.pass = size(k.pass, b.pass);
    b.vd = size(k.vd, b.vd);
    b.ffn = size(k.ffn, b.ffn);
    if (b.heads() == 0) b.kv = b.q = b.freq = b.pass = b.vd = 0;
    s.blocks.push_back(b);
  }
  return s;
}

Index kept_entries(const Dim& dim, const Sizes& base, std::int64_t base_block, const Sizes& result,
                   std::int64_t block, const Kept& kept) {
  const Kept::Block none;
  const Kept::Block& in = block >= 0 ? kept.block[static_cast<std::size_t>(block)] : none;
  const auto list_of = [&](const std::string& axis) -> const Index& {
    static const Index null;
    if (axis == "vocab") return kept.vocab;
    if (axis == "hidden") return kept.hidden;
    if (axis == "pos") return kept.pos;
    if (axis == "kv") return in.kv;
    if (axis == "freq") return in.freq;
    if (axis == "pass") return in.pass;
    if (axis == "vd") return in.vd;
    if (axis == "ffn") return in.ffn;
    return null;
  };
  bool all = true;
  for (const std::string& axis : dim.axes()) all = all && !list_of(axis) && !(axis == "q" && !in.q.empty());
  if (all) return nullptr;
  const std::vector<Leaf> from = dim.leaves([&](std::string_view a) { return base.of(a, base_block); });
  const std::vector<Leaf> to = dim.leaves([&](std::string_view a) { return result.of(a, block); });
  std::vector<std::int64_t> entries(
      static_cast<std::size_t>(dim.size([&](std::string_view a) { return result.of(a, block); })));
  for (const Leaf& leaf : to) {
    const auto source = std::find_if(from.begin(), from.end(), [&](const Leaf& l) {
      return l.axes == leaf.axes && l.tensor == leaf.tensor;
    });
    SLMC_CHECK(source != from.end());
    std::vector<std::int64_t> at(leaf.axes.size(), 0);
    for (std::int64_t n = 0; n < leaf.count(); ++n) {
      std::int64_t old_entry = source->offset, new_entry = leaf.offset, group = 0;
      for (std::size_t a = 0; a < at.size(); ++a) {
        const std::string& axis = leaf.axes[a];
        if (axis == "kv") group = at[a];
        const std::int64_t coordinate =
            axis == "q" && !in.q.empty()
                ? in.q[static_cast<std::size_t>(group)][static_cast<std::size_t>(at[a])]
                : base_coordinate(list_of(axis), at[a]);
        old_entry += coordinate * source->strides[a];
        new_entry += at[a] * leaf.strides[a];
      }
      entries[static_cast<std::size_t>(new_entry)] = old_entry;
      for (std::size_t a = at.size(); a-- > 0;) {
        if (++at[a] < leaf.sizes[a]) break;
        at[a] = 0;
      }
    }
  }
  return std::make_shared<const std::vector<std::int64_t>>(std::move(entries));
}

Origin composed(const Origin& base, const Kept& kept, const Sizes& base_sizes, const Sizes& sizes) {
  Origin origin;
  origin.ancestor = base.ancestor;
  const auto through = [](const std::vector<std::int64_t>* older, const std::vector<std::int64_t>& newer) {
    std::vector<std::int64_t> result;
    for (const std::int64_t i : newer) result.push_back(older ? (*older)[static_cast<std::size_t>(i)] : i);
    return result;
  };
  const auto older_of = [&](const std::string& axis) {
    const auto it = base.axes.find(axis);
    return it == base.axes.end() ? nullptr : &it->second;
  };
  if (!base.blocks.empty() || kept.blocks != all_of(static_cast<std::int64_t>(base_sizes.blocks.size())))
    origin.blocks = through(base.blocks.empty() ? nullptr : &base.blocks, kept.blocks);
  const auto add = [&](const std::string& axis, const std::string& old_axis, const Index& index) {
    const std::vector<std::int64_t>* older = older_of(old_axis);
    if (index)
      origin.axes[axis] = through(older, *index);
    else if (older)
      origin.axes[axis] = *older;
  };
  add("vocab", "vocab", kept.vocab);
  add("hidden", "hidden", kept.hidden);
  add("pos", "pos", kept.pos);
  for (std::size_t i = 0; i < kept.blocks.size(); ++i) {
    const std::string to = "block." + std::to_string(i) + ".",
                      from = "block." + std::to_string(kept.blocks[i]) + ".";
    const Kept::Block& k = kept.block[i];
    if (sizes.blocks[i].ffn > 0) add(to + "ffn", from + "ffn", k.ffn);
    if (sizes.blocks[i].heads() == 0) continue;
    add(to + "kv", from + "kv", k.kv);
    add(to + "freq", from + "freq", k.freq);
    add(to + "pass", from + "pass", k.pass);
    add(to + "vd", from + "vd", k.vd);
    for (std::int64_t g = 0; g < sizes.blocks[i].kv; ++g) {
      const std::int64_t old_group = base_coordinate(k.kv, g);
      const Index q = k.q.empty() ? Index{}
                                  : or_null(k.q[static_cast<std::size_t>(g)],
                                            base_sizes.blocks[static_cast<std::size_t>(kept.blocks[i])].q);
      add(to + "kv." + std::to_string(g) + ".q", from + "kv." + std::to_string(old_group) + ".q", q);
    }
  }
  return origin;
}

}  // namespace slmc::ir

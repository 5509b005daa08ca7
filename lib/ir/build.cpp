#include "ir/build.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/bytes.h"
#include "core/error.h"
#include "io/ggml_types.h"
#include "ir/gguf_form.h"

namespace slmc::ir {
namespace {

// "block.4.attn.q" in the result is "block.7.attn.q" in the base when block 4 was block 7.
std::string base_name(const std::string& name, std::int64_t block, const Kept& kept) {
  if (block < 0) return name;
  const std::size_t dot = name.find('.', 6);
  return "block." + std::to_string(kept.blocks[static_cast<std::size_t>(block)]) + name.substr(dot);
}

Rope rope_after(const Rope& base, const BlockSizes& old_size, const Kept::Block& kept) {
  if (base.type == "none" || !kept.freq) return base;
  const std::vector<double> all = frequencies(base, old_size.freq);
  Rope rope;
  rope.type = kept.freq->empty() ? "none" : "custom";
  rope.theta = base.theta;
  for (const std::int64_t i : *kept.freq) rope.own.push_back(all[static_cast<std::size_t>(i)]);
  return rope;
}

// The older gather, then the newer one.
Index through(const Index& older, const Index& newer) {
  if (!older || !newer) return older ? older : newer;
  std::vector<std::int64_t> result;
  result.reserve(newer->size());
  for (const std::int64_t i : *newer) result.push_back((*older)[static_cast<std::size_t>(i)]);
  return std::make_shared<const std::vector<std::int64_t>>(std::move(result));
}

Value gathered(const Model& base, const std::string& name, std::vector<Index> indices) {
  const Model::State& s = base.state();
  const Value& old = s.values[s.by_name.find(name)->second];
  if (!old.base) return {};  // shapes only
  if (std::all_of(indices.begin(), indices.end(), [](const Index& i) { return !i; })) return old;
  Value value;
  if (old.format.empty()) {
    value.base = old.base;
    value.take = std::move(indices);
    for (std::size_t d = 0; d < old.take.size(); ++d) value.take[d] = through(old.take[d], value.take[d]);
    return value;
  }
  value.base = [base, name] {
    return base.read(name);
  };  // a stored type in between: its rounding comes first
  value.take = std::move(indices);
  return value;
}

class Builder {
 public:
  Builder(const Plan& plan, const Model& base) : plan_(plan), base_(base), old_(base.state()) {}

  Built run() {
    if (!plan_.base_shape.empty() && plan_.base_shape != base_.shape_hash())
      violate("base", "the plan must be for a model of this shape, but was made for another (" +
                          plan_.base_shape.substr(0, 12) + ", this is " + base_.shape_hash().substr(0, 12) +
                          ")");
    kept_ = kept_of(plan_, base_, built_.violations);
    if (built_.violations.empty()) limit_sizes(sizes_after(old_.sizes, kept_));
    if (built_.violations.empty()) limit_positions();
    if (!built_.violations.empty()) return std::move(built_);
    built_.state = std::make_shared<Model::State>();
    copy_what_stays();
    apply_config();
    make_tensors();
    for (const auto& [name, from] : plan_.set) set(name, from);
    new_->decoder.tied_head = new_->by_name.find("head") == new_->by_name.end();
    apply_format();
    new_->origin = composed(old_.origin, kept_, old_.sizes, new_->sizes);
    return std::move(built_);
  }

 private:
  void violate(const std::string& what, const std::string& message, const std::string& nearest = {}) {
    built_.violations.push_back({what, message, nearest});
  }

  // Repeated entries multiply, and nested axes multiply each other: a page of plan could ask for lists of billions of entries. Refused before
  // any is made. The limits are some ten times what the largest public models have.
  void limit_sizes(const Sizes& sizes) {
    constexpr std::int64_t kMostBlocks = 1000, kLargest = 1 << 22, kLargestSum = 1 << 24;
    const auto limit = [&](const std::string& axis, std::int64_t size, std::int64_t most) {
      if (size > most)
        violate(axis,
                "a model must have at most " + std::to_string(most) + " entries of " + axis +
                    ", but would have " + std::to_string(size),
                std::to_string(most));
    };
    limit("block", static_cast<std::int64_t>(sizes.blocks.size()), kMostBlocks);
    limit("hidden", sizes.hidden, kLargest);
    limit("vocab", sizes.vocab, kLargest);
    limit("pos", sizes.pos, kLargest);
    std::int64_t sum = 0;
    for (std::size_t b = 0; b < sizes.blocks.size() && built_.violations.empty(); ++b) {
      const BlockSizes& s = sizes.blocks[b];
      const std::string prefix = "block." + std::to_string(b) + ".";
      const auto widest = static_cast<std::int64_t>(std::max(2 * s.freq + s.pass, s.vd));
      const std::int64_t attention = s.heads() * (s.heads() > kLargest ? 1 : widest);
      limit(prefix + "ffn", s.ffn, kLargest);
      limit(prefix + "kv", attention, kLargest);
      sum += s.ffn + attention;
    }
    if (built_.violations.empty() && sum > kLargestSum)
      violate("block", "heads and feed-forward parts of all blocks must have at most " + std::to_string(kLargestSum) +
                           " rows together, but would have " + std::to_string(sum));
  }

  // Rows of the learned positions that no token reads hold the place of those behind them.
  void limit_positions() {
    const std::int64_t offset = old_.decoder.pos_offset;
    if (!kept_.pos || offset == 0) return;
    const std::vector<std::int64_t>& rows = *kept_.pos;
    bool stay = static_cast<std::int64_t>(rows.size()) > offset;
    for (std::int64_t i = 0; stay && i < offset; ++i) stay = rows[static_cast<std::size_t>(i)] == i;
    if (!stay)
      violate("pos", "the first " + std::to_string(offset) + " positions, which no token reads, must stay in front of at least one other, but do not");
  }

  void copy_what_stays() {
    new_ = built_.state.get();
    new_->arch = old_.arch;
    new_->templates = old_.templates;
    new_->decoder = old_.decoder;
    new_->sizes = sizes_after(old_.sizes, kept_);
    new_->source = old_.source;
    new_->container = old_.container;
    new_->config = old_.config;
    new_->metadata = old_.metadata;
    new_->tokenizer = old_.tokenizer;
    new_->side_files = old_.side_files;
    new_->lineage = old_.lineage;
    if (kept_.vocab) cut_vocabulary(*new_, *kept_.vocab);
    new_->ancestor = old_.ancestor ? old_.ancestor : std::make_shared<const Model>(base_);
    for (std::size_t i = 0; i < kept_.blocks.size(); ++i) {
      const auto b = static_cast<std::size_t>(kept_.blocks[i]);
      new_->ropes.push_back(new_->sizes.blocks[i].heads() == 0
                                ? Rope{}
                                : rope_after(old_.ropes[b], old_.sizes.blocks[b], kept_.block[i]));
    }
    Decoder& d = new_->decoder;
    if (d.window) {
      d.window_blocks.clear();
      for (const std::int64_t b : kept_.blocks)
        d.window_blocks.push_back(old_.decoder.window_blocks[static_cast<std::size_t>(b)]);
    }
    if (new_->sizes.pos > 0) d.context = std::min(d.context, new_->sizes.pos - d.pos_offset);
    drop_idle_window();
  }

  void drop_idle_window() {
    Decoder& d = new_->decoder;
    if (d.window && (*d.window >= d.context || std::none_of(d.window_blocks.begin(), d.window_blocks.end(),
                                                            [](bool b) { return b; }))) {
      d.window.reset();
      d.window_blocks.clear();
    }
  }

  void apply_config() {
    if (!plan_.config) return;
    for (const auto& item : plan_.config->items()) {
      const std::string& key = item.key();
      const Json& value = item.value();
      const auto positive = [&] {
        return value.is_number() && value.get<double>() > 0 && std::isfinite(value.get<double>());
      };
      const auto whole = [&] { return value.is_number_integer() && value.get<std::int64_t>() > 0; };
      Decoder& d = new_->decoder;
      bool good = true;
      if (key == "context") {
        good = whole() && (new_->sizes.pos == 0 || value.get<std::int64_t>() <= new_->sizes.pos - d.pos_offset);
        if (good) d.context = value.get<std::int64_t>();
      } else if (key == "window") {
        good = value.is_null() || whole();
        if (good) set_window(value);
      } else if (key == "norm_eps") {
        if ((good = positive())) d.norm_eps = as_decimal_float(value.get<double>());
      } else if (key == "attn_scale") {
        if ((good = positive())) d.attn_scale = value.get<double>();
      } else if (key == "parallel_residual") {
        if ((good = value.is_boolean())) d.parallel_residual = value.get<bool>();
      } else if (key == "family") {
        good = value.is_string() && set_family(value.get<std::string>());
      } else {
        violate("config." + key, "'config' must name decoder options, but names '" + key + "'",
                closest(key, {"context", "window", "norm_eps", "attn_scale", "parallel_residual", "family"}));
        continue;
      }
      if (!good)
        violate("config." + key, "the option '" + key + "' must have a value that models can have, but is " +
                                     dump_compact(value));
    }
    drop_idle_window();
  }

  void set_window(const Json& value) {
    Decoder& d = new_->decoder;
    if (value.is_null()) {
      d.window.reset();
      d.window_blocks.clear();
      return;
    }
    if (!d.window) d.window_blocks.assign(new_->sizes.blocks.size(), true);
    d.window = value.get<std::int64_t>();
  }

  bool set_family(const std::string& family) {
    for (const auto& t : old_.templates)
      if (t->family == family) {
        if (family != old_.arch->family) {  // another family's config is made anew
          new_->arch = t;
          new_->config = Json::object();
          new_->metadata.reset();
          new_->container.clear();
        }
        return true;
      }
    return false;
  }

  void make_tensors() {
    new_->tensors = logical_tensors(*old_.arch, new_->sizes, [&](const std::string& name) {
      const std::int64_t block = name.starts_with("block.") ? std::stoll(name.substr(6)) : -1;
      return base_.has(base_name(name, block, kept_));
    });
    for (TensorSpec& spec : new_->tensors) {
      if (spec.derived) {
        new_->values.emplace_back();
        continue;
      }
      const std::string from = base_name(spec.name, spec.block, kept_);
      std::vector<Index> indices = indices_of(spec);
      spec.stored_dtype = dtype_after(*base_.find(from), indices);
      new_->values.push_back(gathered(base_, from, std::move(indices)));
    }
    index_tensors(*new_);
  }

  std::vector<Index> indices_of(const TensorSpec& spec) const {
    std::vector<Index> indices;
    const std::int64_t from = spec.block < 0 ? -1 : kept_.blocks[static_cast<std::size_t>(spec.block)];
    for (const Dim& d : spec.dims) indices.push_back(entries_of(d, from, spec.block));
    return indices;
  }

  // Dimensions of outer axes alone ("hidden") are the same in every block: their lists are made once and
  // shared.
  Index entries_of(const Dim& dim, std::int64_t base_block, std::int64_t block) const {
    const std::vector<std::string> axes = dim.axes();
    const bool outer = std::all_of(axes.begin(), axes.end(), [](const std::string& a) {
      return a == "hidden" || a == "vocab" || a == "pos";
    });
    if (!outer) return kept_entries(dim, old_.sizes, base_block, new_->sizes, block, kept_);
    const auto [it, fresh] = shared_.try_emplace(dim.text());
    if (fresh) it->second = kept_entries(dim, old_.sizes, -1, new_->sizes, -1, kept_);
    return it->second;
  }

  // A quantized tensor whose columns are cut inside a group is dequantized: said here without reading it.
  static std::string dtype_after(const TensorSpec& old, const std::vector<Index>& indices) {
    const io::GgmlTypeInfo* type = io::ggml_type(std::string_view(old.stored_dtype));
    if (!indices.back()) return old.stored_dtype;
    if (!type && !dtype_from(old.stored_dtype)) return "F32";               // packed, or a scheme that no file has
    if (!type || type->block == 1) return old.stored_dtype;
    const std::vector<std::int64_t>& kept = *indices.back();
    const std::int64_t group = type->block;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const std::size_t in = i % static_cast<std::size_t>(group);
      if (kept.size() % static_cast<std::size_t>(group) != 0 || kept[i - in] % group != 0 ||
          kept[i] != kept[i - in] + static_cast<std::int64_t>(in))
        return "F32";
    }
    return old.stored_dtype;
  }

  // The tensor's place in the result: an existing one, or one that the family knows but this model lacked (a
  // bias, a head).
  TensorSpec* place_for(const std::string& name) {
    if (const auto it = new_->by_name.find(name); it != new_->by_name.end())
      return new_->tensors[it->second].derived ? nullptr : &new_->tensors[it->second];
    std::vector<TensorSpec> possible = logical_tensors(*new_->arch, new_->sizes, [&](const std::string& n) {
      return n == name || new_->by_name.contains(n);
    });
    const auto made = std::find_if(possible.begin(), possible.end(),
                                   [&](const TensorSpec& t) { return t.name == name && !t.derived; });
    if (made == possible.end()) return nullptr;
    const std::size_t at = static_cast<std::size_t>(made - possible.begin());
    new_->tensors.insert(new_->tensors.begin() + static_cast<std::ptrdiff_t>(at), *made);
    new_->values.insert(new_->values.begin() + static_cast<std::ptrdiff_t>(at), Value{});
    index_tensors(*new_);
    return &new_->tensors[at];
  }

  void set(const std::string& name, const SetFrom& from) {
    TensorSpec* spec = place_for(name);
    if (!spec) {
      std::vector<std::string> names;
      for (const TensorSpec& t : new_->tensors) names.push_back(t.name);
      return violate(name, "'set' must name tensors of the result, but names '" + name + "'",
                     closest(name, names));
    }
    const std::size_t at = new_->by_name.find(name)->second;
    if (!from.copy.empty() && !from.value) return copy(name, from.copy, at);
    const auto wrong_shape = [&](const std::vector<std::int64_t>& shape) {
      violate(name, "the tensor set as '" + name + "' must be " + shape_text(spec->shape) + ", but is " +
                        shape_text(shape));
    };
    if (from.value) {
      if (from.value->shape != spec->shape) return wrong_shape(from.value->shape);
      spec->stored_dtype = type_name(*from.value);
      new_->values[at] = {[value = *from.value] { return value; }, {}, {}};
      return;
    }
    if (plan_.base_content.empty())
      violate(name,
              "a plan that sets tensors from a file must give the content hash of its base, but does not");
    try {
      const io::TensorData value =
          read_value(from, plan_.folder);  // maps the file; dense values are not copied
      if (value.shape != spec->shape) return wrong_shape(value.shape);
      spec->stored_dtype = type_name(value);
    } catch (const Error& e) {
      return violate(name, "the tensor set as '" + name + "' must be readable, but is not: " + e.message());
    }
    new_->values[at] = {[from, folder = plan_.folder] { return read_value(from, folder); }, {}, {}};
  }

  // A tensor of the base, cut as `take` cuts it.
  void copy(const std::string& name, const std::string& from, std::size_t at) {
    const TensorSpec* source = base_.find(from);
    if (!source || source->derived) {
      std::vector<std::string> names;
      for (const TensorSpec& t : base_.tensors()) names.push_back(t.name);
      return violate(name, "'copy' must name a tensor of the base, but names '" + from + "'",
                     closest(from, names));
    }
    TensorSpec& spec = new_->tensors[at];
    const auto kept_at = std::find(kept_.blocks.begin(), kept_.blocks.end(), source->block);
    std::vector<Index> indices(source->dims.size());
    if (source->block < 0 || kept_at != kept_.blocks.end())
      for (std::size_t d = 0; d < source->dims.size(); ++d)
        indices[d] = entries_of(source->dims[d], source->block,
                                source->block < 0 ? -1 : kept_at - kept_.blocks.begin());
    std::vector<std::int64_t> shape = source->shape;
    for (std::size_t d = 0; d < shape.size(); ++d)
      if (indices[d]) shape[d] = static_cast<std::int64_t>(indices[d]->size());
    if (shape != spec.shape)
      return violate(name, "the copy of '" + from + "' must be " + shape_text(spec.shape) + ", but is " +
                               shape_text(shape));
    spec.stored_dtype = dtype_after(*source, indices);
    new_->values[at] = gathered(base_, from, std::move(indices));
  }

  static std::string type_name(const io::TensorData& value) {
    if (!value.quantized) return std::string(to_string(value.dtype));
    if (const std::optional<io::GgmlType> type = io::ggml_type_of(value.quantized->scheme))
      return std::string(io::info(*type).name);
    return "quantized";
  }

  void apply_format() {
    for (std::size_t i = 0; i < new_->tensors.size(); ++i) {
      TensorSpec& spec = new_->tensors[i];
      if (spec.derived) continue;
      std::string format;
      for (const auto& [glob, type] : plan_.format)
        if (glob_matches(glob, spec.name)) format = type;
      if (format.empty()) continue;
      const io::GgmlTypeInfo* type = io::ggml_type(std::string_view(format));
      if (!type || !type->writable) {
        violate(
            spec.name,
            "the stored type must be F32, F16, BF16, q8_0, q4_0, q4_1, q5_0 or q5_1, but is '" + format + "'",
            closest(format, {"F32", "F16", "BF16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"}));
        return;
      }
      if (type->block > 1 && (spec.shape.size() < 2 || spec.name == "pos"))
        continue;  // vectors stay as they are
      if (type->block > 1 && spec.shape.back() % type->block != 0)
        type = io::ggml_type(std::string_view("f16"));
      spec.stored_dtype = std::string(type->name);
      if (type->block == 1)
        std::transform(spec.stored_dtype.begin(), spec.stored_dtype.end(), spec.stored_dtype.begin(),
                       [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
      if (new_->values[i].base) {
        Value& value = new_->values[i];
        if (!value.format.empty())
          value = {[old = value, name = spec.name] { return with_format(old, name); }, {}, {}};
        value.format = spec.stored_dtype;
      }
    }
  }

  // A value that was stored in one type already, before it gets another.
  static io::TensorData with_format(const Value& value, const std::string& name) {
    io::TensorData data = value.base();
    if (!value.take.empty()) data = take(data, value.take);
    return stored_as(data, value.format, name);
  }

  const Plan& plan_;
  const Model& base_;
  const Model::State& old_;
  Model::State* new_ = nullptr;
  Kept kept_;
  mutable std::map<std::string, Index> shared_;  // by the dimension's text
  Built built_;
};

}  // namespace

Built build(const Plan& plan, const Model& base) { return Builder(plan, base).run(); }

}  // namespace slmc::ir

#include "apps/slmc/inspect.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/bytes.h"
#include "core/units.h"
#include "io/ggml_types.h"

namespace slmc::cli {
namespace {

std::int64_t bytes_of(const std::string& type, std::int64_t count) {
  if (const auto dense = dtype_from(type)) return count * static_cast<std::int64_t>(size_of(*dense));
  if (type.starts_with("packed")) return count * (type.back() - '0') / 8;        // the codes; scales are a few percent more
  const io::GgmlTypeInfo* block = io::ggml_type(std::string_view(type));
  return block ? count / block->block * block->bytes : 0;
}

std::vector<TypeShare> shares(const ir::Model& model) {
  std::map<std::string, TypeShare> by_type;
  for (const ir::TensorSpec& tensor : model.tensors()) {
    if (tensor.derived) continue;
    TypeShare& share = by_type[tensor.stored_dtype];
    const auto count = static_cast<std::int64_t>(element_count(tensor.shape, tensor.name));
    share.type = tensor.stored_dtype;
    share.tensors += 1;
    share.parameters += count;
    share.bytes += bytes_of(tensor.stored_dtype, count);
  }
  std::vector<TypeShare> out;
  for (auto& [type, share] : by_type) out.push_back(share);
  std::stable_sort(out.begin(), out.end(), [](const TypeShare& a, const TypeShare& b) { return a.bytes > b.bytes; });
  return out;
}

Json block_json(const ir::BlockSizes& b) {
  return {{"kv", b.kv}, {"q", b.q}, {"freq", b.freq}, {"pass", b.pass}, {"vd", b.vd}, {"ffn", b.ffn}};
}

Json types_json(const std::vector<TypeShare>& types) {
  Json out = Json::object();
  for (const TypeShare& s : types) out[s.type] = {{"tensors", s.tensors}, {"parameters", s.parameters}, {"bytes", s.bytes}};
  return out;
}

std::string heads_text(const ir::Sizes& sizes) {
  return fmt::format("{} groups, {} queries each, head {} + {} without rotation, values {}", per_block(sizes, &ir::BlockSizes::kv),
                     per_block(sizes, &ir::BlockSizes::q), per_block(sizes, &ir::BlockSizes::freq) + " pairs",
                     per_block(sizes, &ir::BlockSizes::pass), per_block(sizes, &ir::BlockSizes::vd));
}

}  // namespace

std::string per_block(const ir::Sizes& sizes, std::int64_t ir::BlockSizes::* axis) {
  std::vector<std::int64_t> values;
  for (const ir::BlockSizes& block : sizes.blocks) values.push_back(block.*axis);
  if (values.empty()) return "0";
  if (std::all_of(values.begin(), values.end(), [&](std::int64_t v) { return v == values.front(); })) return std::to_string(values.front());
  return fmt::format("[{}]", fmt::join(values, ", "));
}

Summary summarise(const ir::Model& model) {
  Summary out;
  out.source = model.source();
  out.family = model.family();
  out.container = model.container();
  out.file_bytes = static_cast<std::uint64_t>(ir::file_bytes(model.source()));
  out.shape_hash = model.shape_hash();
  out.cost = ir::cost(model);
  out.sizes = model.sizes();
  out.decoder = model.decoder();
  out.types = shares(model);
  out.tokenizer = model.tokenizer().has_value();
  if (out.tokenizer) {
    out.tokens = model.tokenizer()->size();
    out.tokenizer_hash = model.tokenizer()->content_hash();
  }
  out.lineage = model.lineage().size();
  return out;
}

Json to_json(const Summary& s) {
  Json blocks = Json::array();
  for (const ir::BlockSizes& b : s.sizes.blocks) blocks.push_back(block_json(b));
  Json tokenizer;
  if (s.tokenizer) tokenizer = {{"tokens", s.tokens}, {"hash", s.tokenizer_hash}};
  return {{"model", s.source},
          {"family", s.family},
          {"container", s.container},
          {"parameters", s.cost.parameters},
          {"parameters_body", s.cost.parameters_body},
          {"file_bytes", s.file_bytes},
          {"types", types_json(s.types)},
          {"flops_per_token", s.cost.flops_per_token},
          {"kv_bytes_per_token", s.cost.kv_bytes_per_token},
          {"context", s.decoder.context},
          {"tied_head", s.decoder.tied_head},
          {"sizes", {{"vocab", s.sizes.vocab}, {"hidden", s.sizes.hidden}, {"pos", s.sizes.pos}, {"blocks", blocks}}},
          {"tokenizer", tokenizer},
          {"shape_hash", s.shape_hash},
          {"lineage", s.lineage}};
}

report::Table table_of(const Summary& s) {
  report::Table out{.titles = {"what", "value"}, .rows = {}, .right = {false, false}};
  const auto row = [&](const char* what, std::string value) { out.rows.push_back({what, std::move(value)}); };
  row("model", s.source);
  row("family", s.family + ", " + s.container);
  row("parameters", fmt::format("{} ({}), {} in the blocks", s.cost.parameters, format_count(static_cast<std::uint64_t>(s.cost.parameters)),
                                format_count(static_cast<std::uint64_t>(s.cost.parameters_body))));
  row("weight files", fmt::format("{} bytes ({})", s.file_bytes, format_bytes(s.file_bytes)));
  for (const TypeShare& t : s.types) {
    row(("  " + t.type).c_str(), fmt::format("{} in {} tensors, {:.1f} % of the parameters", format_bytes(static_cast<std::uint64_t>(t.bytes)),
                                            t.tensors, 100.0 * static_cast<double>(t.parameters) / static_cast<double>(std::max<std::int64_t>(s.cost.parameters, 1))));
  }
  row("blocks", std::to_string(s.sizes.blocks.size()));
  row("hidden", std::to_string(s.sizes.hidden));
  row("feed-forward", per_block(s.sizes, &ir::BlockSizes::ffn));
  row("attention", heads_text(s.sizes));
  row("vocabulary", fmt::format("{}{}", s.sizes.vocab, s.decoder.tied_head ? ", head tied to the embedding" : ""));
  row("context", fmt::format("{} tokens", s.decoder.context));
  row("forward", fmt::format("{:.3g} GFLOP per token at 512 tokens of context", s.cost.flops_per_token * 1e-9));
  row("keys and values", fmt::format("{} per token in 16 bits", format_bytes(static_cast<std::uint64_t>(s.cost.kv_bytes_per_token))));
  row("tokenizer", s.tokenizer ? fmt::format("{} tokens", s.tokens) : "none");
  row("made by", s.lineage == 0 ? "no stage of slmc" : fmt::format("{} stages (`slmc log`)", s.lineage));
  return out;
}

}  // namespace slmc::cli

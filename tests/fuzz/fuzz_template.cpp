// Any bytes give a template whose layouts are bijections at small sizes, or one Error of kind Recipe (or
// Model, when an expression meets values that it can't work with). Never a crash, a hang, or another
// exception.
#include <nlohmann/json.hpp>
#include <set>

#include "ir/layout.h"
#include "ir/resolve.h"
#include "ir/template.h"
#include "tests/fuzz/fuzz.h"

using namespace slmc;
using namespace slmc::fuzz;

namespace {

// All sizes small and different.
ir::Sizes small_sizes() {
  ir::Sizes s;
  s.vocab = 5;
  s.hidden = 4;
  s.pos = 3;
  s.blocks.assign(2, {2, 3, 2, 1, 2, 6});
  return s;
}

std::int64_t elements(const std::vector<std::int64_t>& shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

// Every stored element is in one part, and every logical one is visited at most once.
void check_stored(const ir::StoredTensor& t, std::int64_t most) {
  if (elements(t.shape) > most) return;
  std::int64_t visited = 0;
  std::set<std::int64_t> stored;
  for (const ir::Part& part : t.parts) {
    std::set<std::int64_t> logical;
    ir::visit_runs(part, [&](std::int64_t s, std::int64_t l, std::int64_t run) {
      for (std::int64_t i = 0; i < run; ++i) {
        require(s + i >= 0 && s + i < elements(t.shape), "stored elements lie inside");
        require(stored.insert(s + i).second, "no stored element is visited twice");
        if (part.pieces.size() == 1)
          require(logical.insert(l + i).second, "no logical element is visited twice");
        ++visited;
      }
    });
  }
  require(visited == elements(t.shape), "every stored element is visited");
}

void check_template(const ir::Template& arch) {
  const ir::Sizes sizes = small_sizes();
  for (const auto& [name, container] : arch.containers)
    for (const ir::StoredSpec& spec : container.tensors) {
      if (spec.ignored || spec.rope_factors) continue;
      try {
        check_stored(ir::place(spec, arch, sizes, spec.name.find("{block}") == std::string::npos ? -1 : 1),
                     100'000);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::Model) require_refusal(error, ErrorKind::Recipe);
      }
    }
  const Json config = parse_json(
      R"({"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 3, "num_hidden_layers": 2, "vocab_size": 5})",
      "config.json", ErrorKind::Model);
  ir::ConfigSource source;
  source.config = &config;
  source.file = "config.json";
  if (!arch.containers.contains("hf")) return;
  try {
    const ir::Resolved resolved = ir::resolve(arch, "hf", source);
    require(resolved.sizes.hidden > 0 && !resolved.sizes.blocks.empty(), "a resolved model has sizes");
  } catch (const Error& error) {
    require(error.kind() == ErrorKind::Model || error.kind() == ErrorKind::Recipe ||
                error.kind() == ErrorKind::Unsupported,
            "resolving refuses by kind");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const Json json = parse_json({reinterpret_cast<const char*>(data), size}, "fuzz", ErrorKind::Recipe);
    check_template(*ir::parse_template(json, "fuzz"));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Model) require_refusal(error, ErrorKind::Recipe);
  }
  return 0;
}

// Any bytes give a plan that `check` judges, or one Error of kind Recipe. What `check` accepts, `apply`
// makes: its tensors have the shapes that were said, and the plan written as JSON makes the same model. Never
// a crash, a hang, or memory beyond what the result needs.
#include <nlohmann/json.hpp>

#include "ir/plan.h"
#include "tests/fuzz/fuzz.h"

using namespace slmc;
using namespace slmc::fuzz;

namespace {

const ir::Model& base() {
  static const ir::Model model = ir::with_weights(
      parse_json(
          R"({"model_type": "qwen3", "hidden_size": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 5, "num_hidden_layers": 2,
                     "vocab_size": 7, "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 1, "tie_word_embeddings": true})",
          "config.json", ErrorKind::Model),
      [](const ir::TensorSpec& spec) {
        std::int64_t n = 1;
        for (const std::int64_t s : spec.shape) n *= s;
        return io::TensorData::floats(spec.shape, std::vector<float>(static_cast<std::size_t>(n), 0.5f));
      });
  return model;
}

void check_result(const ir::Model& made) {
  std::int64_t total = 0;
  for (const ir::TensorSpec& spec : made.tensors()) {
    std::int64_t n = 1;
    for (const std::int64_t s : spec.shape) {
      require(s > 0, "no tensor of a result is empty");
      n *= s;
    }
    total += n;
  }
  if (total > 1'000'000) return;
  for (const ir::TensorSpec& spec : made.tensors())
    require(made.read(spec.name).shape == spec.shape, "a tensor has the shape that was said");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    ir::Plan plan = ir::plan_from_json(
        parse_json({reinterpret_cast<const char*>(data), size}, "fuzz", ErrorKind::Recipe), "fuzz");
    plan.base_shape.clear();  // else no input would ever get further
    plan.folder = "/nonexistent";
    const ir::Verdict verdict = ir::check(plan, base());
    for (const ir::Violation& v : verdict.violations) require(!v.message.empty(), "a violation says why");
    if (!verdict.ok()) return 0;
    const ir::Model made = ir::apply(plan, base());
    check_result(made);
    const ir::Plan again = ir::plan_from_json(ir::to_json(plan), "again");
    require(ir::apply(again, base()).shape_hash() == made.shape_hash(),
            "a plan written and read makes the same shapes");
  } catch (const Error& error) {
    require_refusal(error, ErrorKind::Recipe);
  }
  return 0;
}

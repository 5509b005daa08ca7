// Legality of plans, without weights; and `apply`, which makes the changed model.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "ir/build.h"

namespace slmc::ir {
namespace {

std::vector<Violation> container_violations(const Model::State& state, const std::string& container) {
  std::vector<Violation> all =
      fit(facts_of(state), container, container == state.container ? &state.config : nullptr).violations;
  if (container == "gguf" && state.tokenizer && state.container != "gguf") {
    try {
      state.tokenizer->to_gguf(state.sizes.vocab);
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::Internal) throw;
      all.push_back({"vocab", "GGUF can't hold the tokenizer: " + e.message(), ""});
    }
  }
  return all;
}

}  // namespace

bool Verdict::fits(const std::string& container) const {
  if (!ok()) return false;
  const auto it = cannot.find(container);
  return it == cannot.end() || it->second.empty();
}

Verdict check(const Plan& plan, const Model& base) {
  Built built = build(plan, base);
  Verdict verdict;
  verdict.violations = std::move(built.violations);
  if (!verdict.violations.empty()) return verdict;
  for (const char* container : {"hf", "gguf"})
    if (std::vector<Violation> why = container_violations(*built.state, container); !why.empty())
      verdict.cannot[container] = std::move(why);
  return verdict;
}

void require_ok(const Verdict& verdict, const std::string& container) {
  std::vector<Violation> all = verdict.violations;
  if (all.empty() && !container.empty() && !verdict.fits(container)) all = verdict.cannot.at(container);
  if (all.empty()) return;
  std::vector<Diagnostic> diagnostics;
  for (const Violation& v : all) {
    Diagnostic& d = diagnostics.emplace_back();
    d.message = v.axis_or_tensor.empty() ? v.message : v.axis_or_tensor + ": " + v.message;
    if (!v.nearest.empty()) d.hint = "the nearest that is possible is " + v.nearest;
  }
  throw Error(ErrorKind::Recipe, std::move(diagnostics));
}

Model apply(const Plan& plan, const Model& base) {
  Built built = build(plan, base);
  Verdict verdict;
  verdict.violations = std::move(built.violations);
  require_ok(verdict, "");
  const bool from_files = std::any_of(plan.set.begin(), plan.set.end(),
                                      [](const auto& s) { return !s.second.value && s.second.copy.empty(); });
  if (from_files && plan.base_content != base.content_hash())
    throw Error(
        ErrorKind::Recipe,
        "a plan with stored tensors must be applied to the model it was made for, but the contents differ",
        "solve again on this model");
  return Model(built.state);
}

}  // namespace slmc::ir

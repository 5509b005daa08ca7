// Seeded plans of one model, applied and written wherever they fit, for check_plans.py to open: OUT/SEED, OUT/SEED.gguf (both F32), OUT/SEED.safetensors
// with ids and our fp32 logits. Prints a JSON line per plan and container: {"seed", "container", "fits", "violations": [{"axis", "message", "nearest", "legal"}]}.
// legal: whether the axis is no longer complained about when it gets the size that `nearest` names; null where nearest is no size.
// usage: write_plans MODEL OUT PLANS
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/rng.h"
#include "engine/decoder.h"
#include "engine/tensors.h"
#include "io/safetensors.h"
#include "ir/template.h"
#include "ir/write.h"
#include "tests/support/export_plans.h"

namespace fs = std::filesystem;
using slmc::Json;
using namespace slmc;

namespace {

constexpr std::int64_t kWindow = 24;

Json violations_json(const ir::Plan& plan, const ir::Model& model, const std::string& container, const ir::Verdict& verdict) {
  std::vector<ir::Violation> all = verdict.violations;
  if (const auto it = verdict.cannot.find(container); it != verdict.cannot.end()) all.insert(all.end(), it->second.begin(), it->second.end());
  Json out = Json::array();
  for (const ir::Violation& v : all) {
    const std::optional<bool> ok = slmc::testing::legal(plan, model, container, v);
    out.push_back({{"axis", v.axis_or_tensor}, {"message", v.message}, {"nearest", v.nearest}, {"legal", ok ? Json(*ok) : Json()}});
  }
  return out;
}

void write_logits(const fs::path& file, const ir::Model& model, std::uint64_t seed) {
  const std::int64_t context = model.decoder().context, n = context > 0 ? std::min(kWindow, context) : kWindow;
  at::Tensor ids = at::empty({1, n}, at::kLong);
  const Rng rng(derive_seed(seed, "ids"));
  for (std::int64_t i = 0; i < n; ++i) {
    ids.mutable_data_ptr<std::int64_t>()[i] = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(model.sizes().vocab), static_cast<std::uint64_t>(i)));
  }
  const at::NoGradGuard no_grad;
  engine::Loaded loaded = engine::load(model, at::kFloat, at::kCPU, engine::Storage::Owned);
  const at::Tensor z = engine::logits(loaded.arch, loaded.weights, engine::hidden_states(loaded.arch, loaded.weights, ids)).contiguous();
  io::SafetensorsWriter out = io::SafetensorsWriter::single(file, {{"ids", DType::I64, {n}}, {"logits", DType::F32, {n, z.size(2)}}});
  out.write("ids", {static_cast<const std::byte*>(ids.const_data_ptr()), ids.nbytes()});
  out.write("logits", {static_cast<const std::byte*>(z.const_data_ptr()), z.nbytes()});
  out.finish();
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) return 2;
  const ir::Model model = ir::load(argv[1]);
  const fs::path out = argv[2];
  fs::create_directories(out);
  const std::uint64_t plans = std::strtoull(argv[3], nullptr, 10);
  for (std::uint64_t seed = 0; seed < plans; ++seed) {
    const ir::Plan plan = slmc::testing::export_plan(model, seed);
    const ir::Verdict verdict = ir::check(plan, model);
    const std::string name = std::to_string(seed);
    bool written = false;
    for (const char* container : {"hf", "gguf"}) {
      if (!model.arch().containers.contains(container)) continue;
      const bool fits = verdict.fits(container);
      if (fits) {
        const ir::Model cut = ir::apply(plan, model);
        if (std::string(container) == "hf")
          ir::write_hf(cut, out / name, DType::F32);
        else
          ir::write_gguf(cut, out / (name + ".gguf"), {{"*", "f32"}});
        if (!written) write_logits(out / (name + ".safetensors"), cut, seed);
        written = true;
      }
      const Json row = {{"seed", seed}, {"container", container}, {"fits", fits}, {"violations", fits ? Json::array() : violations_json(plan, model, container, verdict)}};
      std::printf("%s\n", row.dump().c_str());
    }
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}

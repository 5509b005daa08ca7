// The gate law: a cut model and a gated one give the same logits. For every tiny checkpoint, each kind of axis alone and fifty seeded
// combinations; ir::apply makes the cut, the plan's kept entries make the gates.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <numeric>
#include <set>

#include "core/error.h"
#include "ir/plan.h"
#include "ir/template.h"
#include "ir/write.h"
#include "test_folder.h"
#include "tests/support/random_plans.h"
#include "tests/unit/engine_testing.h"

namespace slmc::engine {
namespace {

at::Tensor open_at(std::int64_t size, const std::vector<std::int64_t>& kept) {
  at::Tensor gate = at::zeros({size}, at::kDouble);
  for (const std::int64_t i : kept) gate[i].fill_(1.0);
  return gate.to(test_device());
}

Gates gates_of(const ir::Plan& plan, const ir::Sizes& sizes) {
  Gates gates;
  for (const auto& [axis, kept] : plan.take) {
    const auto row = axis.find(".kv.");
    if (row == std::string::npos) {
      const auto block = axis.rfind("block.", 0) == 0 ? std::stoll(axis.substr(6)) : -1;
      const std::string kind = axis.substr(axis.rfind('.') == std::string::npos ? 0 : axis.rfind('.') + 1);
      gates.of[axis] = open_at(sizes.of(kind, block), kept);
      continue;
    }
    const std::int64_t block = std::stoll(axis.substr(6)), group = std::stoll(axis.substr(row + 4));     // "block.3.kv.0.q"
    const ir::BlockSizes& size = sizes.blocks[static_cast<std::size_t>(block)];
    at::Tensor& gate = gates.of[axis.substr(0, row) + ".kv.q"];
    if (!gate.defined()) gate = at::ones({size.kv, size.q}, at::kDouble).to(test_device());
    gate[group].copy_(open_at(size.q, kept));
  }
  return gates;
}

// Largest difference of the logits that both models have; the text uses only kept tokens and no more positions than are left.
double broken_by(const ir::Model& base, Loaded& whole, const ir::Plan& plan, std::uint64_t seed) {
  const ir::Model cut = ir::apply(plan, base);
  Loaded small = load(cut, at::kDouble, test_device(), Storage::Owned);
  const auto vocab = plan.take.find("vocab");
  const at::Tensor ids = random_ids({2, cut.sizes().pos > 0 ? std::min<std::int64_t>(11, cut.decoder().context) : 11}, cut.sizes().vocab, seed);
  at::Tensor kept;
  if (vocab != plan.take.end()) kept = at::tensor(vocab->second).to(test_device());
  const at::Tensor base_ids = kept.defined() ? kept.index_select(0, ids.flatten()).view(ids.sizes()) : ids;
  const Gates gates = gates_of(plan, base.sizes());
  Pass pass;
  pass.gates = &gates;
  at::Tensor gated = all_logits(whole, base_ids, pass);
  if (kept.defined()) {
    EXPECT_EQ(gated.isfinite().sum().item<std::int64_t>(), ids.numel() * kept.numel());       // closed rows are -inf
    gated = gated.index_select(2, kept);
  }
  return difference(all_logits(small, ids), gated);
}

TEST(GateLaw, EveryAxisAlone) {
  const at::NoGradGuard no_grad;
  std::map<std::string, int> tried;
  for (const std::string& name : tiny_names()) {
    Tiny t = tiny(name);
    testing::PlanMaker make(t.model, 5);
    for (const std::string& kind : make.kinds()) {
      for (std::uint64_t i = 0; i < 3; ++i) {
        SCOPED_TRACE(name + ": " + kind);
        EXPECT_LE(broken_by(t.model, t.loaded, make.alone(kind), i), 1e-9);
        ++tried[kind];
      }
    }
  }
  EXPECT_EQ(tried.size(), 12u);              // vocab hidden pos block kv q freq pass vd ffn attention feed-forward
}

TEST(GateLaw, FiftyCombinationsOfEveryFamily) {
  const at::NoGradGuard no_grad;
  for (const std::string& name : tiny_names()) {
    Tiny t = tiny(name);
    testing::PlanMaker make(t.model, 11);
    for (std::uint64_t i = 0; i < 50; ++i) {
      SCOPED_TRACE(name + ": combination " + std::to_string(i));
      EXPECT_LE(broken_by(t.model, t.loaded, make.combined(), i), 1e-9);
    }
  }
}

std::vector<std::int64_t> all_of(std::int64_t size) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(size));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// Every axis with its size, but positions and blocks, whose order matters. "block.2.kv.1.q" stands for one group.
std::map<std::string, std::int64_t> inner_axes(const ir::Sizes& sizes) {
  std::map<std::string, std::int64_t> out = {{"vocab", sizes.vocab}, {"hidden", sizes.hidden}};
  for (std::size_t b = 0; b < sizes.blocks.size(); ++b) {
    const ir::BlockSizes& s = sizes.blocks[b];
    const std::string prefix = "block." + std::to_string(b) + ".";
    out[prefix + "kv"] = s.kv, out[prefix + "vd"] = s.vd, out[prefix + "ffn"] = s.ffn;
    if (s.freq > 0) out[prefix + "freq"] = s.freq;
    if (s.pass > 0) out[prefix + "pass"] = s.pass;
    for (std::int64_t g = 0; g < s.kv; ++g) out[prefix + "kv." + std::to_string(g) + ".q"] = s.q;
  }
  return out;
}

// Keeping everything on every axis is the identity, bit for bit.
TEST(GateLaw, KeepAllIsTheIdentity) {
  const at::NoGradGuard no_grad;
  for (const std::string& name : tiny_names()) {
    SCOPED_TRACE(name);
    Tiny t = tiny(name);
    ir::Plan all(t.model);
    for (const auto& [axis, size] : inner_axes(t.model.sizes())) all.take[axis] = all_of(size);
    all.take["block"] = all_of(t.model.blocks());
    if (t.model.sizes().pos > 0) all.take["pos"] = all_of(t.model.sizes().pos);
    Loaded same = load(ir::apply(all, t.model), at::kDouble, test_device());
    EXPECT_TRUE(same_bits(all_logits(same, t.of("ids.33")), all_logits(t.loaded, t.of("ids.33"))));
  }
}

// A permutation changes nothing but the order of sums: each axis alone, and all at once.
TEST(GateLaw, PermutationsOfEveryAxisChangeNothing) {
  const at::NoGradGuard no_grad;
  for (const std::string& name : tiny_names()) {
    Tiny t = tiny(name);
    const auto axes = inner_axes(t.model.sizes());
    const at::Tensor want = all_logits(t.loaded, t.of("ids.33"));
    const Rng rng(9);
    std::uint64_t n = 0;
    ir::Plan together(t.model);
    const auto moved_by = [&](const ir::Plan& plan) {
      Loaded moved = load(ir::apply(plan, t.model), at::kDouble, test_device());
      const auto vocab = plan.take.find("vocab");
      if (vocab == plan.take.end()) return difference(all_logits(moved, t.of("ids.33")), want);
      std::vector<std::int64_t> place(vocab->second.size());               // token -> its new id
      for (std::size_t i = 0; i < place.size(); ++i) place[static_cast<std::size_t>(vocab->second[i])] = static_cast<std::int64_t>(i);
      const at::Tensor new_id = at::tensor(place).to(test_device()), ids = t.of("ids.33");
      const at::Tensor logits = all_logits(moved, new_id.index_select(0, ids.flatten()).view(ids.sizes()));
      return difference(logits.index_select(2, new_id), want);
    };
    for (const auto& [axis, size] : axes) {
      SCOPED_TRACE(name + ": " + axis);
      ir::Plan alone(t.model);
      alone.take[axis] = together.take[axis] = Rng(rng.bits(n++)).permutation(size);
      EXPECT_LE(moved_by(alone), 1e-9);
    }
    SCOPED_TRACE(name + ": all axes");
    EXPECT_LE(moved_by(together), 1e-9);
  }
}

// The first law in logits: a cut model in fp64 that a Hugging Face folder can hold gives the same ones when it is read back, whatever had
// to be folded into weights. Each axis alone and fifty combinations.
class WriteLaw : public FolderTest {
 protected:
  double lost(const ir::Model& base, const ir::Plan& plan, std::uint64_t seed) {
    const ir::Model cut = ir::apply(plan, base);
    std::filesystem::remove_all(folder_ / "model");
    ir::write_hf(cut, folder_ / "model", std::nullopt);
    Loaded before = load(cut, at::kDouble, test_device()), after = load(ir::load((folder_ / "model").string()), at::kDouble, test_device());
    const std::int64_t length = cut.sizes().pos > 0 ? std::min<std::int64_t>(11, cut.decoder().context) : 11;
    const at::Tensor ids = random_ids({2, length}, cut.sizes().vocab, seed);
    return difference(all_logits(after, ids), all_logits(before, ids));
  }
};

TEST_F(WriteLaw, LogitsSurviveAFolder) {
  const at::NoGradGuard no_grad;
  int held = 0, refused = 0;
  for (const std::string& name : tiny_names()) {
    const ir::Model stored = ir::load((tiny_folder() / name).string());
    const ir::Model base = ir::with_weights(stored.config(), [&](const ir::TensorSpec& spec) {
      const auto values = std::make_shared<at::Tensor>(to_tensor(stored.read(spec.name), at::kDouble));
      return share(*values);
    });
    testing::PlanMaker make(base, 17);
    std::vector<ir::Plan> plans;
    for (const std::string& kind : make.kinds()) plans.push_back(make.uniform({kind}));
    for (int i = 0; i < 50; ++i) plans.push_back(make.uniform());
    for (std::size_t i = 0; i < plans.size(); ++i) {
      SCOPED_TRACE(name + ": plan " + std::to_string(i));
      if (!ir::check(plans[i], base).fits("hf")) {
        ++refused;
        EXPECT_THROW(ir::write_hf(ir::apply(plans[i], base), folder_ / "refused", std::nullopt), Error);
        continue;
      }
      ++held;
      EXPECT_LE(lost(base, plans[i], i), 1e-9);
    }
  }
  EXPECT_GT(held, 150);
  EXPECT_GT(refused, 50);
}

TEST(EveryTemplate, HasATinyCheckpointHere) {
  std::set<std::string> families, tested;
  for (const auto& t : ir::load_templates()) families.insert(t->family);
  for (const std::string& name : tiny_names()) tested.insert(ir::load((tiny_folder() / name).string()).family());
  EXPECT_EQ(tested, families);
}

// Gates of one on every axis run the gated paths and must change nothing.
TEST(GateLaw, OpenGatesAreTheIdentity) {
  const at::NoGradGuard no_grad;
  for (const std::string& name : tiny_names()) {
    SCOPED_TRACE(name);
    Tiny t = tiny(name);
    Gates gates;
    const auto open = [&](const std::string& axis, at::IntArrayRef shape) { gates.of[axis] = at::ones(shape, at::kDouble).to(test_device()); };
    const ir::Sizes& s = t.model.sizes();
    open("vocab", {s.vocab});
    open("hidden", {s.hidden});
    open("block", {t.model.blocks()});
    if (s.pos > 0) open("pos", {s.pos});
    for (std::int64_t b = 0; b < t.model.blocks(); ++b) {
      const ir::BlockSizes& size = s.blocks[static_cast<std::size_t>(b)];
      const std::string prefix = "block." + std::to_string(b) + ".";
      open(prefix + "kv", {size.kv});
      open(prefix + "kv.q", {size.kv, size.q});
      open(prefix + "freq", {size.freq});
      open(prefix + "pass", {size.pass});
      open(prefix + "vd", {size.vd});
      open(prefix + "ffn", {size.ffn});
    }
    Pass pass;
    pass.gates = &gates;
    EXPECT_LE(difference(all_logits(t.loaded, t.of("ids.33"), pass), t.of("logits.33")), 1e-9);
  }
}

// A gate's gradient is the derivative: compared with central differences at a half-open point.
TEST(GateLaw, GradientsOfGatesEqualFiniteDifferences) {
  for (const std::string name : {"qwen3", "gpt2", "gpt_neox"}) {
    Tiny t = tiny(name);
    const at::Tensor ids = t.of("ids.7");
    const ir::BlockSizes& size = t.model.sizes().blocks[0];
    std::map<std::string, std::vector<std::int64_t>> axes = {{"hidden", {t.model.sizes().hidden}}, {"block", {t.model.blocks()}},
                                                             {"block.0.ffn", {size.ffn}}, {"block.0.kv", {size.kv}},
                                                             {"block.0.kv.q", {size.kv, size.q}}, {"block.0.vd", {size.vd}}};
    if (size.freq > 0) axes["block.0.freq"] = {size.freq};
    if (size.pass > 0) axes["block.0.pass"] = {size.pass};
    for (const auto& [axis, shape] : axes) {
      SCOPED_TRACE(name + ": " + axis);
      const at::Tensor probe = random_tensor({ids.size(0), ids.size(1), t.model.sizes().vocab}, 4);
      const auto value = [&](const at::Tensor& gate) {
        Gates gates;
        gates.of[axis] = gate;
        Pass pass;
        pass.gates = &gates;
        return (all_logits(t.loaded, ids, pass) * probe).sum();
      };
      const at::Tensor gate = (random_tensor(shape, 7).abs() * 0.2 + 0.5).requires_grad_();
      value(gate).backward();
      for (std::int64_t i = 0; i < std::min<std::int64_t>(4, gate.numel()); ++i) {
        const at::NoGradGuard no_grad;
        constexpr double kStep = 1e-6;
        at::Tensor up = gate.detach().clone(), down = gate.detach().clone();
        up.flatten()[i].add_(kStep), down.flatten()[i].sub_(kStep);
        const double slope = (value(up) - value(down)).item<double>() / (2 * kStep);
        EXPECT_NEAR(gate.grad().flatten()[i].item<double>(), slope, 1e-5 * (1 + std::abs(slope)));
      }
    }
  }
}

}  // namespace
}  // namespace slmc::engine

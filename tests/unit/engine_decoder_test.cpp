// The decoder against fp64 goldens of the public implementation (scripts/goldens/tiny_models.py), and against itself: with a cache, with
// documents, recomputed.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <set>

#include "core/error.h"
#include "engine/layers.h"
#include "tests/unit/error_text.h"
#include "tests/unit/engine_testing.h"

namespace slmc::engine {
namespace {

constexpr double kExact = 1e-9;              // fp64 results that differ only in the order of sums

TEST(Decoder, EveryFamilyEqualsItsGolden) {
  ASSERT_EQ(tiny_names().size(), 10u);
  const at::NoGradGuard no_grad;
  for (const std::string& name : tiny_names()) {
    Tiny t = tiny(name);
    for (const char* length : {"1", "7", "33"}) {
      SCOPED_TRACE(name + " of length " + length);
      const at::Tensor want = t.of("logits." + std::string(length));
      EXPECT_LE(difference(all_logits(t.loaded, t.of("ids." + std::string(length))), want), kExact);
    }
  }
}

TEST(Decoder, Fp32StaysWithinItsRounding) {
  const at::NoGradGuard no_grad;
  for (const std::string& name : tiny_names()) {
    SCOPED_TRACE(name);
    const Tiny t = tiny(name);
    Loaded floats = load(t.model, at::kFloat, test_device());
    const at::Tensor want = t.of("logits.33");
    EXPECT_LE(difference(all_logits(floats, t.of("ids.33")), want), 1e-6 * want.abs().max().item<double>() * 10);
  }
}

at::Tensor sum_of_losses(Loaded& model, const at::Tensor& x, const at::Tensor& ids, const Pass& pass) {
  const at::Tensor h = run_blocks(model.arch, model.weights, x, 0, blocks_of(model.arch), pass);
  const at::Tensor z = logits(model.arch, model.weights, final_norm(model.arch, model.weights, h, pass), pass);
  const std::int64_t t = ids.size(1) - 1;
  return at::cross_entropy_loss(z.narrow(1, 0, t).flatten(0, 1), ids.narrow(1, 1, t).flatten(), {}, at::Reduction::Sum);
}

// Input embeddings as a leaf, positions added behind it.
at::Tensor leaf_embeddings(Loaded& model, const at::Tensor& ids) {
  return model.weights.tensor("embed").detach().index_select(0, ids.flatten()).view({ids.size(0), ids.size(1), -1}).requires_grad_();
}

at::Tensor with_positions(Loaded& model, const at::Tensor& x) {
  return model.weights.has("pos") ? x + model.weights.tensor("pos").narrow(0, model.arch.options.pos_offset, x.size(1)) : x;
}

TEST(Decoder, GradientsEqualTheirGolden) {
  for (const std::string& name : tiny_names()) {
    SCOPED_TRACE(name);
    Tiny t = tiny(name);
    const at::Tensor ids = t.of("ids.7"), x = leaf_embeddings(t.loaded, ids);
    sum_of_losses(t.loaded, with_positions(t.loaded, x), ids, {}).backward();
    EXPECT_LE(difference(x.grad(), t.of("embed_grad")), kExact);
  }
}

// Gradients of every weight and of the input, by name.
std::map<std::string, at::Tensor> all_gradients(Tiny& t, const Pass& pass, bool train_input) {
  for (auto& [name, w] : t.loaded.weights.all()) {
    if (!name.ends_with(".rope")) w = w.detach().clone().requires_grad_();
  }
  const at::Tensor ids = t.of("ids.7");
  at::Tensor x = leaf_embeddings(t.loaded, ids);
  if (!train_input) x = x.detach();
  sum_of_losses(t.loaded, with_positions(t.loaded, x), ids, pass).backward();
  std::map<std::string, at::Tensor> out = {{"input", train_input ? x.grad() : at::Tensor()}};
  for (const auto& [name, w] : t.loaded.weights.all()) out[name] = w.grad();
  return out;
}

TEST(Decoder, RecomputedGradientsAreTheSameBits) {
  for (const std::string& name : tiny_names()) {
    for (const bool train_input : {true, false}) {
      SCOPED_TRACE(name + (train_input ? ", gradient to the input" : ", input frozen"));
      Tiny t = tiny(name);
      Pass recomputed;
      recomputed.recompute = true;
      const auto plain = all_gradients(t, {}, train_input), again = all_gradients(t, recomputed, train_input);
      for (const auto& [weight, gradient] : plain) EXPECT_TRUE(same_bits(gradient, again.at(weight))) << weight;
      EXPECT_TRUE(plain.at("block.0.ffn.up").defined());
    }
  }
}

TEST(Decoder, RecomputationPassesGradientsToGates) {
  Tiny t = tiny("llama");
  std::map<bool, std::vector<at::Tensor>> gradients;
  for (const bool recompute : {false, true}) {
    Gates gates;
    gates.of["hidden"] = (at::ones({30}, at::kDouble) * 0.9).to(test_device()).requires_grad_();
    const at::Tensor root = at::zeros({44}, at::kDouble).to(test_device()).requires_grad_();
    gates.of["block.1.ffn"] = root.sigmoid();                // not a leaf
    Pass pass;
    pass.gates = &gates;
    pass.recompute = recompute;
    const at::Tensor ids = t.of("ids.7");
    sum_of_losses(t.loaded, with_positions(t.loaded, leaf_embeddings(t.loaded, ids)), ids, pass).backward();
    gradients[recompute] = {gates.of["hidden"].grad(), root.grad()};
  }
  EXPECT_GT(gradients[false][1].abs().max().item<double>(), 1e-6);
  EXPECT_LE(difference(gradients[false][0], gradients[true][0]), 1e-13);      // `hidden` is read in every block: sums in another order
  EXPECT_TRUE(same_bits(gradients[false][1], gradients[true][1]));
}

TEST(Decoder, CacheGivesWhatTheWholeTextGives) {
  const at::NoGradGuard no_grad;
  for (const std::string& name : tiny_names()) {
    SCOPED_TRACE(name);
    Tiny t = tiny(name);
    const at::Tensor ids = t.of("ids.33");
    KvCache cache(t.loaded.arch, ids.size(0), 40, at::kDouble, test_device());
    Pass pass;
    pass.cache = &cache;
    std::vector<at::Tensor> rows;
    for (std::int64_t i = 0, step = 5; i < ids.size(1); i += step, step = step % 3 + 1) {      // pieces of 5, 3, 1, 2, 3, 1 ...
      step = std::min(step, ids.size(1) - i);
      rows.push_back(hidden_states(t.loaded.arch, t.loaded.weights, ids.narrow(1, i, step), pass));
      cache.advance(step);
    }
    EXPECT_LE(difference(logits(t.loaded.arch, t.loaded.weights, at::cat(rows, 1)), t.of("logits.33")), kExact);
    cache.truncate(20);                                                                        // and once more from the middle
    const at::Tensor h = hidden_states(t.loaded.arch, t.loaded.weights, ids.narrow(1, 20, 13), pass);
    EXPECT_LE(difference(logits(t.loaded.arch, t.loaded.weights, h), t.of("logits.33").narrow(1, 20, 13)), kExact);
  }
}

TEST(Decoder, CacheGrowsBeyondItsFirstRoomAndStopsAtItsCapacity) {
  const at::NoGradGuard no_grad;
  Tiny t = tiny("llama");
  const at::Tensor ids = random_ids({1, 300}, 67, 3);
  KvCache cache(t.loaded.arch, 1, 300, at::kDouble, test_device());
  Pass pass;
  pass.cache = &cache;
  (void)hidden_states(t.loaded.arch, t.loaded.weights, ids.narrow(1, 0, 250), pass);
  cache.advance(250);
  const at::Tensor h = hidden_states(t.loaded.arch, t.loaded.weights, ids.narrow(1, 250, 50), pass);
  cache.advance(50);
  EXPECT_LE(difference(h, hidden_states(t.loaded.arch, t.loaded.weights, ids).narrow(1, 250, 50)), kExact);
  EXPECT_THROW((void)hidden_states(t.loaded.arch, t.loaded.weights, ids.narrow(1, 0, 1), pass), Error);
}

// Packed documents: each is computed as if it were alone. Rotary positions count on, which only differences of positions see.
TEST(Decoder, DocumentsDontSeeEachOther) {
  const at::NoGradGuard no_grad;
  for (const std::string& name : tiny_names()) {
    SCOPED_TRACE(name);
    Tiny t = tiny(name);
    if (t.loaded.weights.has("pos")) continue;               // learned positions belong to the window, not to the document
    const at::Tensor a = t.of("ids.7"), b = t.of("ids.33").narrow(1, 0, 21), both = at::cat({a, b}, 1);
    Pass pass;
    pass.document = at::cat({at::zeros_like(a), at::ones_like(b)}, 1);
    const at::Tensor z = all_logits(t.loaded, both, pass);
    EXPECT_LE(difference(z.narrow(1, 0, 7), all_logits(t.loaded, a)), kExact);
    EXPECT_LE(difference(z.narrow(1, 7, 21), all_logits(t.loaded, b)), kExact);
    EXPECT_GT(difference(all_logits(t.loaded, both).narrow(1, 7, 21), all_logits(t.loaded, b)), 1e-3);
  }
}

TEST(Decoder, BlocksCanBeRunInPieces) {
  const at::NoGradGuard no_grad;
  Tiny t = tiny("qwen3");
  const at::Tensor ids = t.of("ids.7");
  at::Tensor x = embed(t.loaded.arch, t.loaded.weights, ids);
  for (std::int64_t b = 0; b < 3; ++b) {
    PlainWeights one = load_block(t.model, b, at::kDouble, test_device());
    x = run_blocks(t.loaded.arch, one, x, b, b + 1);
  }
  PlainWeights rest = load_block(t.model, -1, at::kDouble, test_device());
  EXPECT_LE(difference(logits(t.loaded.arch, rest, final_norm(t.loaded.arch, rest, x)), t.of("logits.7")), kExact);
}

struct Recorder : Tap {
  bool wants(const std::string&) const override { return true; }
  void see(const std::string& site, const at::Tensor& value) override { seen[site] = value; }
  std::map<std::string, at::Tensor> seen;
};

TEST(Sites, TapsSeeInputsAndOutputsOfEveryLinearMap) {
  const at::NoGradGuard no_grad;
  for (const std::string name : {"llama_tied", "gpt2", "gpt_neox"}) {
    SCOPED_TRACE(name);
    Tiny t = tiny(name);
    Recorder tap;
    Pass pass;
    pass.tap = &tap;
    const at::Tensor z = all_logits(t.loaded, t.of("ids.7"), pass);
    EXPECT_LE(difference(z, t.of("logits.7")), kExact);      // looking changes nothing
    std::size_t maps = 0;
    for (const auto& [weight, w] : t.loaded.weights.all()) {
      if (w.dim() != 2 || weight.rfind("block.", 0) != 0) continue;
      ++maps;
      ASSERT_TRUE(tap.seen.contains(weight + ".in") && tap.seen.contains(weight + ".out")) << weight;
      EXPECT_LE(difference(t.loaded.weights.linear(weight, tap.seen[weight + ".in"]), tap.seen[weight + ".out"]), kExact) << weight;
    }
    EXPECT_EQ(maps, static_cast<std::size_t>(blocks_of(t.loaded.arch)) * (name == "llama_tied" ? 7 : 6));
    EXPECT_TRUE(same_bits(tap.seen["block.0.attn.q.in"], tap.seen["block.0.attn.k.in"]));
    EXPECT_TRUE(same_bits(tap.seen["block.0.out"], tap.seen["block.1.in"]));
    EXPECT_LE(difference(logits(t.loaded.arch, t.loaded.weights, tap.seen["head.in"]), z), kExact);
    EXPECT_EQ(tap.seen.contains("block.0.mid"), name != "gpt_neox");
  }
}

struct Doubler : Edit {
  explicit Doubler(std::string the_site) : site(std::move(the_site)) {}
  bool wants(const std::string& s) const override { return s == site; }
  at::Tensor change(const std::string&, const at::Tensor& value) override { return value * 2; }
  std::string site;
};

TEST(Sites, EditsReplaceWhatFollows) {
  const at::NoGradGuard no_grad;
  Tiny t = tiny("llama");
  const at::Tensor ids = t.of("ids.7");
  for (const std::string site : {"block.1.ffn.down.in", "block.0.attn.o.out", "block.1.mid", "block.0.out", "head.in"}) {
    SCOPED_TRACE(site);
    Doubler edit(site);
    Recorder tap;
    Pass pass;
    pass.edit = &edit;
    pass.tap = &tap;
    const at::Tensor z = all_logits(t.loaded, ids, pass);
    EXPECT_GT(difference(z, t.of("logits.7")), 1e-3);
    Recorder plain;
    Pass look;
    look.tap = &plain;
    (void)all_logits(t.loaded, ids, look);
    EXPECT_LE(difference(tap.seen[site], plain.seen[site] * 2), kExact);     // taps see the changed value
  }
}

TEST(Decoder, RefusesWhatDoesNotFit) {
  const at::NoGradGuard no_grad;
  Tiny t = tiny("gpt2");
  EXPECT_EQ(error_text([&] { (void)all_logits(t.loaded, random_ids({1, 49}, 89, 1)); }),
            "error: the text must be at most 48 tokens, the number of positions that the model has learned, but is 49");
  if (test_device().is_cpu()) {
    EXPECT_EQ(error_text([&] { (void)all_logits(t.loaded, at::tensor(std::vector<std::int64_t>{3, 89}).view({1, 2})); }),
              "error: a token id must be in 0 .. 88, but is 89\nhint: is this the tokenizer that belongs to the model?");
  }
}

// softmax(scale q k^T + mask) v by its definition, heads one by one.
at::Tensor attention_by_hand(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, const at::Tensor& mask) {
  std::vector<at::Tensor> heads;
  for (std::int64_t h = 0; h < q.size(2); ++h) {
    const std::int64_t group = h / (q.size(2) / k.size(2));
    at::Tensor scores = q.select(2, h).matmul(k.select(2, group).transpose(1, 2)) * scale;        // [B, T, S]
    if (mask.defined()) {
      scores = scores + mask.squeeze(1);
    } else {
      const at::Tensor t = at::arange(q.size(1)).to(q.device());
      scores = scores.masked_fill(t.unsqueeze(0) > t.unsqueeze(1), -1e300);
    }
    heads.push_back(scores.softmax(-1).matmul(v.select(2, group)));
  }
  return at::stack(heads, 2);
}

TEST(Layers, AttentionEqualsItsDefinitionForUnequalWidthsAndGroups) {
  struct Case { std::int64_t t, s, heads, kv, d, vd; };
  for (const Case c : {Case{5, 5, 6, 2, 8, 8}, {7, 7, 4, 4, 3, 10}, {6, 6, 3, 1, 9, 2}, {1, 9, 4, 2, 4, 4}, {3, 9, 4, 2, 5, 4}}) {
    const at::Tensor q = random_tensor({2, c.t, c.heads, c.d}, 1), k = random_tensor({2, c.s, c.kv, c.d}, 2),
                     v = random_tensor({2, c.s, c.kv, c.vd}, 3);
    const at::Tensor mask = attention_mask({c.t, c.s, std::nullopt, {}}, at::kDouble, test_device());
    EXPECT_EQ(mask.defined(), c.t != c.s && c.t > 1);
    const at::Tensor open = c.t == 1 ? at::zeros({1, 1, c.t, c.s}, q.options()) : mask;
    EXPECT_LE(difference(attend(q, k, v, 0.37, Visible({c.t, c.s, std::nullopt, {}})), attention_by_hand(q, k, v, 0.37, open)), 1e-12);
  }
}

TEST(Layers, GatedNormsEqualNormsOfTheCut) {
  const at::Tensor x = random_tensor({3, 11}, 1), gain = random_tensor({11}, 2), bias = random_tensor({11}, 3);
  const at::Tensor kept = at::tensor(std::vector<std::int64_t>{0, 2, 3, 7, 10}).to(test_device());
  const at::Tensor gate = at::zeros({11}, x.options()).index_fill(0, kept, 1.0);
  const auto cut = [&](const at::Tensor& v) { return v.index_select(-1, kept); };
  for (const ir::Norm kind : {ir::Norm::Rms, ir::Norm::Layer}) {
    EXPECT_LE(difference(cut(normalize(kind, x, gain, bias, 1e-5, gate)), normalize(kind, cut(x), cut(gain), cut(bias), 1e-5)), 1e-14);
    EXPECT_LE(difference(normalize(kind, x, gain, bias, 1e-5, at::ones({11}, x.options())), normalize(kind, x, gain, bias, 1e-5)), 1e-14);
  }
}

}  // namespace
}  // namespace slmc::engine

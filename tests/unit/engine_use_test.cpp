// Using a model: evaluation against plain sums, generation against whole passes, sampling against its definition, prompts, kernels.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "core/cancel.h"
#include "engine/chat_template.h"
#include "engine/evaluate.h"
#include "engine/generate.h"
#include "engine/kernels.h"
#include "engine/prompt.h"
#include "engine/whole_text.h"
#include "tests/unit/engine_testing.h"
#include "tests/unit/error_text.h"

namespace slmc::engine {
namespace {

at::Tensor log_probs(Loaded& model, const at::Tensor& ids) {
  const at::NoGradGuard no_grad;
  return at::log_softmax(all_logits(model, ids), -1);
}

TEST(Evaluate, WindowsEqualPlainMeans) {
  Tiny t = tiny("qwen2");
  const at::Tensor windows = random_ids({211, 19}, 79, 1);                 // batches of 107: the last one is ragged
  Kept events;
  const WindowScores scores = score_windows(t.loaded, windows, events);
  const at::Tensor want = -log_probs(t.loaded, windows).narrow(1, 0, 18).gather(2, windows.narrow(1, 1, 18).unsqueeze(2)).squeeze(2).mean(1);
  ASSERT_EQ(scores.nll.size(), 211u);
  for (std::size_t i = 0; i < 211; ++i) EXPECT_NEAR(scores.nll[i], want[static_cast<std::int64_t>(i)].item<double>(), 1e-6);
  EXPECT_NEAR(scores.mean(), want.mean().item<double>(), 1e-6);
  EXPECT_NEAR(scores.standard_error(), want.std().item<double>() / std::sqrt(211.0), 1e-6);
  EXPECT_EQ(events.lines.back(), R"({"event":"progress","what":"windows","done":211,"of":211})");
}

TEST(Evaluate, ComparisonEqualsPlainMeans) {
  Tiny p = tiny("llama"), q = tiny("llama");
  const at::NoGradGuard no_grad;
  q.loaded.weights.all()["block.0.ffn.down"].mul_(0.5);
  const at::Tensor windows = random_ids({7, 12}, 67, 2);
  Kept events;
  const WindowComparison c = compare_windows(q.loaded, p.loaded, windows, events);
  const at::Tensor log_p = log_probs(p.loaded, windows).narrow(1, 0, 11), log_q = log_probs(q.loaded, windows).narrow(1, 0, 11);
  const at::Tensor kl = (log_p.exp() * (log_p - log_q)).sum(2).mean(1), top = (log_p.argmax(2) == log_q.argmax(2)).to(at::kDouble).mean(1);
  for (std::size_t i = 0; i < 7; ++i) {
    EXPECT_NEAR(c.kl[i], kl[static_cast<std::int64_t>(i)].item<double>(), 1e-6);
    EXPECT_DOUBLE_EQ(c.top1[i], top[static_cast<std::int64_t>(i)].item<double>());
    EXPECT_NEAR(c.model.nll[i], score_windows(q.loaded, windows, events).nll[i], 1e-9);
    EXPECT_NEAR(c.reference.nll[i], score_windows(p.loaded, windows, events).nll[i], 1e-9);
  }
  EXPECT_GT(mean_of(c.kl), 0.01);
}

// --windows 0: each id once, from what its window holds before it, by a loop that knows nothing of windows as sequences.
TEST(Evaluate, WholeTextScoresEachTokenOnceAndEachByte) {
  Tiny t = tiny("llama");
  const at::Tensor all = random_ids({24}, 67, 3).to(at::kCPU);
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < 24; ++i) ids.push_back(static_cast<std::int32_t>(all[i].item<std::int64_t>()));
  Kept events;
  for (const std::int64_t window : {2, 5, 7, 24, 100}) {          // the last window is short, whole, alone
    const WholeText got = score_whole(t.loaded, ids, window, events);
    double want = 0;
    std::int64_t start = 0;
    for (std::int64_t k = 1; k < 24; ++k) {
      if (k - start == window) start = k - 1;                    // full: the next begins with the token before
      const at::Tensor lp = log_probs(t.loaded, all.narrow(0, start, k - start).unsqueeze(0).to(test_device()));
      want -= lp[0][k - start - 1][all[k].item<std::int64_t>()].item<double>();
    }
    EXPECT_NEAR(got.nll, want, 1e-5) << window;
    EXPECT_EQ(got.tokens, 23);
    EXPECT_EQ(got.window_nll.size(), static_cast<std::size_t>((23 + window - 2) / (window - 1))) << window;
  }
  EXPECT_EQ(covering_windows({1, 2, 3, 4}, 3).back().ids, (std::vector<std::int32_t>{3, 4}));
  EXPECT_DOUBLE_EQ(bits_per_byte(8 * std::log(2.0), 4), 2);        // a text of four bytes with probability 2^-8
}

TEST(Evaluate, SequencesOfAnyLengthEqualPlainSums) {
  Tiny t = tiny("gpt2");                                                   // learned positions would show a wrong padding at once
  std::vector<data::ScoredSequence> all;
  for (std::int64_t i = 0; i < 60; ++i) {
    data::ScoredSequence s;
    const at::Tensor ids = random_ids({2 + (i * 7) % 40}, 89, static_cast<std::uint64_t>(i)).to(at::kCPU);
    for (std::int64_t k = 0; k < ids.numel(); ++k) s.ids.push_back(static_cast<std::int32_t>(ids[k].item<std::int64_t>()));
    s.start = 1 + i % static_cast<std::int64_t>(s.ids.size() - 1);
    all.push_back(s);
  }
  Kept events;
  const std::vector<double> sums = log_likelihoods(t.loaded, all, events);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const at::Tensor ids = at::tensor(std::vector<std::int64_t>(all[i].ids.begin(), all[i].ids.end())).unsqueeze(0).to(test_device());
    const at::Tensor lp = log_probs(t.loaded, ids);
    double want = 0;
    for (std::int64_t k = all[i].start; k < ids.size(1); ++k) want += lp[0][k - 1][all[i].ids[static_cast<std::size_t>(k)]].item<double>();
    EXPECT_NEAR(sums[i], want, 1e-5);
  }
}

TEST(Evaluate, StopsWhenAsked) {
  Tiny t = tiny("llama");
  Kept events;
  request_cancel(2);
  EXPECT_THROW((void)score_windows(t.loaded, random_ids({2, 4}, 67, 1), events), Error);
  clear_cancel();
}

TEST(Evaluate, AnInfiniteLossNamesItsWindow) {
  Tiny t = tiny("llama");
  const at::NoGradGuard no_grad;
  t.loaded.weights.all()["norm"].fill_(std::numeric_limits<double>::quiet_NaN());
  Kept events;
  EXPECT_EQ(error_text([&] { (void)score_windows(t.loaded, random_ids({2, 4}, 67, 1), events); }),
            "error: the log-likelihood of window 0 must be finite, but is not\n"
            "hint: weights or activations overflow: `slmc inspect` shows the tensors");
}

TEST(Generate, GreedyEqualsWholePasses) {
  const at::NoGradGuard no_grad;
  for (const std::string& name : tiny_names()) {
    SCOPED_TRACE(name);
    Tiny t = tiny(name);
    Session session(t.loaded, 40, at::kDouble, test_device());
    std::vector<std::int32_t> text = {5, 17, 2, 40}, out;
    session.feed(text);
    EXPECT_EQ(session.generate(20, {}, {}, [&](std::int32_t id) { out.push_back(id); }, [] { return false; }), Session::Stop::Length);
    for (const std::int32_t id : out) {
      const at::Tensor ids = at::tensor(std::vector<std::int64_t>(text.begin(), text.end())).unsqueeze(0).to(test_device());
      const at::Tensor z = all_logits(t.loaded, ids).select(1, ids.size(1) - 1).squeeze(0);
      ASSERT_EQ(id, z.argmax().item<std::int64_t>());
      text.push_back(id);
    }
    EXPECT_EQ(out.size(), 20u);
  }
}

TEST(Generate, EndsAtAnEndTokenAndWhenAsked) {
  Tiny t = tiny("llama");
  const std::vector<std::int32_t> prompt = {5, 17, 2, 40};
  std::vector<std::int32_t> all, some;
  Session whole(t.loaded, 40, at::kDouble, test_device());
  whole.feed(prompt);
  (void)whole.generate(12, {}, {}, [&](std::int32_t id) { all.push_back(id); }, [] { return false; });
  const std::int32_t end = all[3];
  Session stopped(t.loaded, 40, at::kDouble, test_device());
  stopped.feed(prompt);
  EXPECT_EQ(stopped.generate(12, {}, {end}, [&](std::int32_t id) { some.push_back(id); }, [] { return false; }), Session::Stop::Eos);
  EXPECT_EQ(some.size(), static_cast<std::size_t>(std::find(all.begin(), all.end(), end) - all.begin()));
  EXPECT_EQ(stopped.generate(12, {}, {}, [](std::int32_t) {}, [] { return true; }), Session::Stop::Asked);
}

TEST(Sample, FollowsItsDistribution) {
  const at::Tensor z = at::tensor(std::vector<double>{1.0, -0.5, 2.0, 0.0, -30.0}).to(at::kFloat);
  const auto counts = [&](Sampling s) {
    std::vector<double> share(5);
    constexpr int kDraws = 20000;
    for (std::uint64_t i = 0; i < kDraws; ++i) share[static_cast<std::size_t>(choose(z, s, i))] += 1.0 / kDraws;
    return share;
  };
  const auto close = [](const std::vector<double>& got, std::vector<double> logits) {
    double sum = 0;
    for (double& x : logits) sum += x = std::exp(x);
    for (std::size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(got[i], logits[i] / sum, 0.012) << i;   // 3.4 standard errors
  };
  constexpr double kNever = -1e30;
  close(counts({.temperature = 1}), {1.0, -0.5, 2.0, 0.0, -30.0});
  close(counts({.temperature = 0.5, .seed = 3}), {2.0, -1.0, 4.0, 0.0, -60.0});
  close(counts({.temperature = 1, .top_k = 2}), {1.0, kNever, 2.0, kNever, kNever});
  close(counts({.temperature = 1, .top_p = 0.9}), {1.0, kNever, 2.0, 0.0, kNever});          // 0.63 + 0.23 < 0.9 <= ... + 0.09
  close(counts({.temperature = 1, .top_p = 0.0}), {kNever, kNever, 2.0, kNever, kNever});
  EXPECT_EQ(choose(z, {}, 0), 2);
  EXPECT_EQ(choose(z, {.temperature = 1, .seed = 7}, 5), choose(z, {.temperature = 1, .seed = 7}, 5));
}

constexpr const char* kSmolLm =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant "
    "named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

TEST(ChatTemplate, SimpleChatMlIsRecognisedInEverySpelling) {
  const ChatMl smol = parse_chat_template(kSmolLm, "t");
  EXPECT_EQ(smol.default_system, "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
  EXPECT_EQ(smol.opening(std::nullopt) + smol.user("Hi"),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(smol.opening("Be brief."), "<|im_start|>system\nBe brief.<|im_end|>\n");
  const ChatMl plain = parse_chat_template(
      "{%- for message in messages -%}\n  {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}\n{%- endfor -%}\n"
      "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}", "t");
  EXPECT_FALSE(plain.default_system);
  EXPECT_EQ(plain.opening(std::nullopt), "");
}

TEST(ChatTemplate, EverythingElseIsRefused) {
  const std::string tools = "{% if tools %}{{ tools }}{% endif %}" + std::string(kSmolLm);
  std::string other = kSmolLm;
  other.replace(other.find("assistant\n' }}"), 9, "gpt");
  std::string cut = kSmolLm;
  cut.resize(cut.size() - 11);
  for (const std::string& text : {std::string(), std::string("{{ bos_token }}[INST] {{ messages[0]['content'] }} [/INST]"), tools, other, cut}) {
    EXPECT_THROW((void)parse_chat_template(text, "t"), Error) << text;
  }
}

TEST(Utf8, ComesOutInWholeCharacters) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z";        // 1, 2, 3, 4 and 1 bytes
  Utf8Stream stream;
  std::string all;
  for (const char byte : text) {
    const std::string piece = stream.push(std::string(1, byte));
    EXPECT_TRUE(piece.empty() || piece.size() == 1 || static_cast<unsigned char>(piece[0]) >= 0xC2);
    all += piece;
  }
  EXPECT_EQ(all + stream.finish(), text);
  EXPECT_EQ(stream.push("\xE2\x82"), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
}

TEST(Kernels, ChosenProductsAgreeWithFp64) {
  const Kernels k = choose_kernels("auto");
  EXPECT_TRUE((k.gemm == Gemm::Mkl ? k.mkl : k.onednn).correct());
  EXPECT_GT(peak_gflops(), 1.0);
  EXPECT_LE(std::max(k.mkl.gflops, k.onednn.gflops), 1.1 * peak_gflops());           // a rate above the roof would be a wrong clock
  for (const std::string wish : {"mkl", "onednn"}) {
    const Kernels fixed = choose_kernels(wish);
    EXPECT_EQ(to_string(fixed.gemm), wish);
    EXPECT_EQ(to_string(current_kernels().gemm), wish);
  }
  (void)choose_kernels("auto");
}

TEST(Kernels, WrongProductsAreNotCorrect) {
  EXPECT_FALSE((GemmTrial{.present = true, .gflops = 1e3, .error = 4e-3}).correct());      // what bf16 factors give
  EXPECT_FALSE((GemmTrial{.present = true, .gflops = 1e3, .error = std::nan("")}).correct());
  EXPECT_FALSE(GemmTrial{}.correct());
}

TEST(Tensors, SurviveTheWayToHostAndBack) {
  const at::Tensor values = random_tensor({3, 5}, 1).to(at::kCPU);
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kChar}) {
    const at::Tensor t = (values * 3).to(type);
    const io::TensorData data = to_data(t.t());                                      // a transposed view becomes contiguous
    EXPECT_EQ(data.shape, (std::vector<std::int64_t>{5, 3}));
    EXPECT_TRUE(to_tensor(data, std::nullopt).equal(t.t()));
    EXPECT_EQ(scalar_type(dtype_of(type)), type);
  }
  EXPECT_THROW((void)scalar_type(DType::U32), Error);
}

TEST(Tensors, StoredTypeIsNotCopied) {
  const io::TensorData data = io::TensorData::floats({2, 2}, {1, 2, 3, 4});
  EXPECT_EQ(to_tensor(data).const_data_ptr(), static_cast<const void*>(data.bytes.data()));
  EXPECT_NE(to_tensor(data, at::kDouble).const_data_ptr(), static_cast<const void*>(data.bytes.data()));
}

TEST(Tensors, UnalignedBytesAreCopied) {
  std::vector<std::byte> room(1 + 8);
  const float values[2] = {1.5f, -2.0f};
  std::memcpy(room.data() + 1, values, 8);
  io::TensorData data = io::TensorData::dense({2}, DType::F32, std::vector<std::byte>(8));
  data.bytes = std::span<const std::byte>(room).subspan(1);
  EXPECT_TRUE(to_tensor(data).equal(at::tensor(std::vector<double>{1.5, -2.0}).to(at::kFloat)));
}

TEST(Weights, OwnedOnesAreWritableAndMappedOnesCostNothing) {
  const ir::Model model = ir::load((tiny_folder() / "llama").string());
  PlainWeights owned(model, at::kFloat, at::kCPU), mapped(model, at::kFloat, at::kCPU, Storage::Mapped);
  owned.all()["block.0.ffn.up"].zero_();
  EXPECT_NE(owned.tensor("block.0.attn.o").const_data_ptr(), mapped.tensor("block.0.attn.o").const_data_ptr());
  EXPECT_EQ(mapped.tensor("block.0.attn.o").const_data_ptr(), static_cast<const void*>(model.read("block.0.attn.o").bytes.data()));
  EXPECT_GT(mapped.tensor("block.0.ffn.up").abs().max().item<double>(), 0.1);          // the file is as it was
}

}  // namespace
}  // namespace slmc::engine

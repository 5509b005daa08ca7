// Tuning a classifier on the tiny trained model: the gradient, what is written and read again, and that it learns.
#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "distillation/classify_task.h"
#include "distillation/ops.h"
#include "engine/op.h"
#include "engine/train/parameters.h"
#include "test_folder.h"
#include "train_testing.h"

namespace slmc::distillation {
namespace {

using engine::Classifier;
using engine::Loaded;
using slmc::testing::normal;

const std::string kRoot = SLMC_SOURCE_DIR;
const std::string kTiny = kRoot + "/tests/data/tiny-trained";

struct Quiet : stage::Events {
  std::vector<Json> all;
  void emit(const Json& event) override { all.push_back(event); }
};

Classifier classifier_of(Classifier::Method method, std::int64_t hidden) {
  Classifier c;
  c.method = method;
  c.classes = {"The Book", "The War of the Worlds", "War and Peace"};
  c.template_text = "Read: {text} It is called";
  c.seq = 12;
  if (method == Classifier::Method::Head) c.head = normal({3, hidden}, 5, 0.3).requires_grad_();
  engine::prepare(c, *ir::load(kTiny).tokenizer());
  return c;
}

std::vector<data::Piece> some_pieces(std::int64_t n, std::int64_t seq) {
  std::vector<data::Piece> out;
  for (std::int64_t i = 0; i < n; ++i) {
    data::Piece piece{{}, i % 3};
    for (std::int64_t t = 0; t < seq; ++t) piece.ids.push_back(static_cast<std::int32_t>(300 + (31 * i + 7 * t) % 900));
    out.push_back(std::move(piece));
  }
  return out;
}

TEST(Words, OfAClassIsTheFirstThatNoOtherHas) {
  const Classifier c = classifier_of(Classifier::Method::Prompt, 0);
  EXPECT_EQ(c.words[0], "Book");                           // "The" begins two names
  EXPECT_EQ(c.words[2], "and");                             // "War" begins a word of another name
  const ir::Model model = ir::load(kTiny);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(c.word_ids[i], model.tokenizer()->encode(" " + c.words[i]).front());
}

TEST(Words, ThatCannotWorkAreRefused) {
  const ir::Model model = ir::load(kTiny);
  const auto says = [&](const auto& change) {
    Classifier c;
    c.classes = {"one", "two"};
    change(c);
    try {
      engine::prepare(c, *model.tokenizer());
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Usage);
      return e.message();
    }
    return std::string();
  };
  EXPECT_EQ(says([](Classifier&) {}), "");
  EXPECT_EQ(says([](Classifier& c) { c.template_text = "no place"; }), "the template must have {text} once, but is 'no place'");
  EXPECT_EQ(says([](Classifier& c) { c.template_text = "{text}{text}"; }), "the template must have {text} once, but is '{text}{text}'");
  EXPECT_EQ(says([](Classifier& c) { c.words = {"one"}; }), "there must be a word for each of 2 classes, but there are 1");
  EXPECT_EQ(says([](Classifier& c) { c.words = {"one", "one"}; }), "the words of two classes must begin with different tokens, but 'one' and 'one' begin alike");
  EXPECT_EQ(says([](Classifier& c) { c.classes = {"same", "same"}; }), "each class must have a word of its own, but 'same' has none that no other begins with");
}

// The oracle forms all logits of the vocabulary in fp64 with the decoder's own parts and picks the words' columns by hand; softmax and
// cross-entropy are written out.
TEST(ClassifyTask, GradientsEqualAutogradOfTheDefinitionInFp64) {
  const ir::Model model = ir::load(kTiny);
  for (const auto method : {Classifier::Method::Prompt, Classifier::Method::Head}) {
    SCOPED_TRACE(method == Classifier::Method::Head ? "head" : "prompt");
    const Classifier c = classifier_of(method, model.sizes().hidden);
    const PieceBatches batches(c, some_pieces(7, 12), 4, at::kCPU);
    const engine::Batch batch = batches.at(5, 6);          // across the border of an epoch

    Loaded exact = engine::load(model, at::kDouble, at::kCPU, engine::Storage::Owned);
    engine::parameter_groups(exact.weights, 0, {});
    const at::Tensor head = method == Classifier::Method::Head ? c.head.detach().to(at::kDouble).requires_grad_() : at::Tensor();
    const at::Tensor h = engine::hidden_states(exact.arch, exact.weights, batch.ids);
    at::Tensor loss;
    for (std::int64_t i = 0; i < 6; ++i) {
      const at::Tensor last = h[i][batch.ids.size(1) - 1];
      std::vector<at::Tensor> z;
      const at::Tensor all = head.defined() ? head.mv(last) : engine::logits(exact.arch, exact.weights, last.unsqueeze(0))[0];
      for (std::size_t k = 0; k < 3; ++k) z.push_back(all[head.defined() ? static_cast<std::int64_t>(k) : c.word_ids[k]].unsqueeze(0));
      const at::Tensor logits = at::cat(z), one = logits.exp().sum().log().sub(logits[batch.label[i].item<std::int64_t>()]);
      loss = loss.defined() ? loss.add(one) : one;
    }
    loss.div(6).backward();

    Loaded fast = engine::load(model, at::kFloat, at::kCPU, engine::Storage::Owned);
    engine::parameter_groups(fast.weights, 0, {});
    Classify task(fast, c, false);
    EXPECT_EQ(task.count(batch), 6);
    const auto sums = task.add_gradients(batch, 1.0 / 6, 0);
    EXPECT_NEAR(sums[0], loss.item<double>(), 2e-5 * loss.item<double>());
    for (const auto& [name, w] : exact.weights.all()) {
      if (!w.grad().defined()) continue;
      EXPECT_LE(slmc::testing::relative_difference(fast.weights.tensor(name).grad(), w.grad()), 5e-5) << name;
    }
    if (head.defined()) {
      EXPECT_LE(slmc::testing::relative_difference(c.head.grad(), head.grad()), 5e-5);
    }
  }
}

TEST(PieceBatches, EachEpochShowsEveryPieceOnceInAnotherOrder) {
  const Classifier c = classifier_of(Classifier::Method::Prompt, 0);
  const std::vector<data::Piece> pieces = some_pieces(9, 12);
  const PieceBatches batches(c, pieces, 11, at::kCPU);
  const auto epoch = [&](std::int64_t n) {
    std::vector<std::int64_t> order;
    for (std::int64_t i = 0; i < 9; ++i) {
      const at::Tensor row = batches.at(9 * n + i, 1).ids[0];
      for (std::size_t k = 0; k < pieces.size(); ++k) {
        if (row[static_cast<std::int64_t>(c.before.size())].item<std::int64_t>() == pieces[k].ids[0]) order.push_back(static_cast<std::int64_t>(k));
      }
    }
    return order;
  };
  const auto first = epoch(0), second = epoch(1);
  EXPECT_NE(first, second);
  for (auto order : {first, second}) {
    std::sort(order.begin(), order.end());
    EXPECT_EQ(order, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8}));
  }
  EXPECT_TRUE(batches.at(3, 14).ids.narrow(0, 4, 5).equal(batches.at(7, 5).ids));      // a window is a function of its number
}

class ClassifyStage : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    at::set_num_threads(1);
    add_ops(ops_);
    engine::add_measures(ops_);
  }
  Json run(const std::string& op, Json job, stage::Events& events) {
    job["slmc_job"] = 1, job["op"] = op, job["seed"] = 3, job["threads"] = 1, job["gemm"] = "mkl", job["models"] = Json::object();
    const stage::Job parsed = stage::job_from_json(job, ops_.at(op).info->settings);
    engine::OpContext context(parsed, events, at::kCPU);
    return ops_.at(op).run(context);
  }
  Json tune(const std::string& name, Json settings, stage::Events& events) {
    settings["objective"] = "classify";
    return run("train", {{"model", kTiny}, {"out", (folder_ / name).string()}, {"resume", (folder_ / (name + "-resume")).string()}, {"settings", std::move(settings)},
                         {"data", {{"train", {{"files", {kRoot + "/configs/data/titles.jsonl"}}, {"label", "title"}, {"seq", 32}}}}}}, events);
  }
  Json measured(const std::string& model) {
    Quiet events;
    const Json task = {{"classify", kRoot + "/configs/data/titles.jsonl"}, {"per_class", 20}};
    return run("eval", {{"model", model}, {"settings", {{"tasks", Json::array({task})}}}, {"data", Json::object()}}, events)["tasks"][0];
  }
  engine::Ops ops_;
};

TEST_F(ClassifyStage, LearnsFromAFewPiecesAndIsMeasuredOnOthers) {
  for (const char* how : {"head"}) {                       // 2003 tokens are too few for a word of its own for each title
    SCOPED_TRACE(how);
    Quiet events;
    const Json settings = {{"classifier", how}, {"template", "{text} Book:"}, {"shots", 16}, {"epochs", 8}, {"lr", 1e-3}, {"dtype", "f32"}};
    const Json result = tune(how, settings, events);
    EXPECT_EQ(result["classes"].size(), 10u);
    EXPECT_LT(result["curve"].back()["loss"].get<double>(), 0.5 * result["curve"].front()["loss"].get<double>());
    const Json out = measured((folder_ / how).string());
    EXPECT_EQ(out["items"], 200);
    EXPECT_GT(out["accuracy"].get<double>(), 0.25);        // chance is 0.1
    std::int64_t right = 0;
    for (std::size_t i = 0; i < 200; ++i) right += out["picks"][i].get<std::size_t>() == i / 20;
    EXPECT_DOUBLE_EQ(out["accuracy"].get<double>(), static_cast<double>(right) / 200);
  }
}

TEST_F(ClassifyStage, ResumedAfterAStopGivesTheSameBits) {
  struct Stopping : Quiet {
    void emit(const Json& event) override {
      if (event.value("event", "") == "progress" && event.value("what", "") == "train" && event.value("done", 0) == 5) throw Error(ErrorKind::Interrupted, "stop");
    }
  } stopping;
  const Json settings = {{"classifier", "head"}, {"shots", 4}, {"epochs", 4}, {"save_every", 2}};
  Quiet events;
  tune("whole", settings, events);
  EXPECT_THROW(tune("cut", settings, stopping), Error);
  EXPECT_EQ(tune("cut", settings, events)["resumed"], true);
  for (const char* file : {"model.safetensors", "classify/head.safetensors", "classify/classify.json"}) {
    EXPECT_EQ(read_text(folder_ / "cut" / file), read_text(folder_ / "whole" / file)) << file;
  }
}

TEST_F(ClassifyStage, AModelThatWasNotTunedIsSkippedAndADamagedOneRefused) {
  EXPECT_TRUE(measured(kTiny).contains("skipped"));
  Quiet events;
  tune("head", {{"classifier", "head"}, {"shots", 2}, {"epochs", 1}}, events);
  const auto file = folder_ / "head" / "classify" / "head.safetensors";
  const std::string whole = read_text(file);
  for (std::size_t n = 0; n < whole.size(); n += 97) {
    write_text(file, whole.substr(0, n));
    EXPECT_THROW(measured((folder_ / "head").string()), Error) << n;
  }
  write_text(file, whole);
  const auto json = folder_ / "head" / "classify" / "classify.json";
  const std::string text = read_text(json);
  write_text(json, text.substr(0, text.size() / 2));
  EXPECT_THROW(measured((folder_ / "head").string()), Error);
  std::string newer = text;
  newer.replace(newer.find("\"slmc_classify\": 1"), 18, "\"slmc_classify\": 9");
  write_text(json, newer);
  try {
    measured((folder_ / "head").string());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Unsupported);
  }
}

}  // namespace
}  // namespace slmc::distillation

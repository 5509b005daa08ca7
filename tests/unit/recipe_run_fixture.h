#pragma once
// A folder with a tiny model, data and a recipe, and an engine made of a function: it really loads, cuts and
// writes models through ir, but trains and measures nothing. Every number that it reports follows from the
// job.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/file.h"
#include "core/hash.h"
#include "ir/cost.h"
#include "ir/plan.h"
#include "ir/write.h"
#include "recipe/run.h"
#include "tests/unit/recipe_infos.h"

namespace slmc::recipe {

namespace fs = std::filesystem;

class RunFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    // In memory where there is such a place: a run flushes a hundred files, and the loops of these tests make
    // hundreds of runs.
    const fs::path base =
        ::access("/dev/shm", W_OK) == 0 ? fs::path("/dev/shm") : fs::path(::testing::TempDir());
    root_ = base / ("slmc-run-" + std::to_string(::getpid()) + "-" +
                    ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
    fs::create_directories(root_ / "data");
    fs::copy(SLMC_SOURCE_DIR "/tests/data/tiny/llama", root_ / "model", fs::copy_options::recursive);
    write_text(root_ / "data/calib.jsonl", "{\"text\": \"one\"}\n");
    write_text(root_ / "data/train.jsonl", "{\"text\": \"two\"}\n");
    write_text(root_ / "data/test.txt", "three\n");
  }
  void TearDown() override {
    testing::fail_nth_write(0);
    fs::remove_all(root_);
  }

  static constexpr const char* kRecipe =
      "slmc: 1\n"
      "name: demo\n"
      "model: model\n"
      "data:\n"
      "  calib: {files: [data/calib.jsonl], samples: 4, seq: 16, licence: CC0}\n"
      "  train: {files: [data/train.jsonl], seq: 16}\n"
      "stages:\n"
      "  - {id: depth, use: drop, with: {layers: 1, search: greedy-kl}}\n"
      "  - {id: width, use: prune, with: {ffn: 32, criterion: random}}\n"
      "  - {id: heal, use: distill, with: {teacher: $model, tokens: 1k}}\n"
      "  - {id: small, use: quantize, with: {to: gguf, type: q8_0}}\n"
      "eval: {tasks: [{ppl: data/test.txt, window: 16, windows: 2}]}\n"
      "gates: {ppl_ratio: {max: 2.0}, file_bytes: {max: 1MB}}\n";

  Environment environment(const std::string& work = "work") const {
    Environment e;
    e.work = root_ / work;
    e.facts = EngineFacts{"2.13.0", "cpu", "onednn"};
    return e;
  }
  RunOptions options(const std::string& work = "work") const {
    RunOptions o;
    o.work = root_ / work;
    o.cache = root_ / "cache";
    o.least_free_disk = 0;
    return o;
  }
  Chain chain(const std::string& text = kRecipe, const std::string& work = "work",
              const std::vector<std::string>& set = {}) const {
    return resolve(decode(text, (root_ / "recipe.yaml").string(), registry(), set), environment(work));
  }
  RunResult run_it(const std::string& text = kRecipe, const std::string& work = "work") {
    return run(chain(text, work), options(work), engine(), sink());
  }

  static const stage::Registry& registry() {
    static const stage::Registry all = test_registry();
    return all;
  }

  // What the ops do to shapes, as the methods would decide it: the first entries stay.
  static ir::Model cut(const ir::Model& model, const stage::Job& job) {
    ir::Plan plan(model);
    const auto first = [](std::int64_t n) {
      std::vector<std::int64_t> out(static_cast<std::size_t>(n));
      std::iota(out.begin(), out.end(), 0);
      return out;
    };
    if (job.op == "drop" && job.settings.has("layers"))
      plan.take["block"] = first(model.blocks() - job.settings.integer("layers"));
    if (job.op == "prune" && job.settings.has("ffn")) {
      for (std::int64_t b = 0; b < model.blocks(); ++b)
        plan.take["block." + std::to_string(b) + ".ffn"] = first(job.settings.integer("ffn"));
    }
    return ir::apply(plan, model);
  }

  Json compute(const stage::Job& job, const Sink& events) {
    events({{"event", "started"}, {"torch", "2.13.0"}});
    if (job.op == "eval") return evaluated(job, events);
    const ir::Model model = cut(ir::load(job.model), job);
    if (job.op == "distill") {
      // Three steps with a checkpoint after each, as a trainer would: a killed run goes on from the last.
      const fs::path checkpoint = fs::path(job.resume) / "step";
      int step = fs::exists(checkpoint) ? std::stoi(read_text(checkpoint)) : 0;
      for (; step < 3; ++step) {
        steps_.push_back(step);
        write_text(checkpoint, std::to_string(step + 1));
        events({{"event", "progress"}, {"what", "training"}, {"done", step + 1}, {"of", 3}});
      }
    }
    if (job.out.ends_with(".gguf")) {
      ir::write_gguf(model, job.out, {{"*", job.settings.text("type")}});
    } else {
      ir::write_hf(model, job.out, DType::F32);
      write_text(fs::path(job.out) / "plan.json", "{\"settings\": " + to_json(job.settings).dump() + "}\n");
    }
    events({{"event", "progress"}, {"what", "writing"}, {"done", 1}, {"of", 1}});
    return {{"event", "result"},
            {"seed", job.seed},
            {"resolved", {}},
            {"measured", {{"seconds", 1.5 + ++clock_}, {"cpu_seconds", 1.0}, {"peak_bytes", 1000 + clock_}}}};
  }

  Json evaluated(const stage::Job& job, const Sink& events) {
    events({{"event", "progress"}, {"what", "eval"}, {"done", 1}, {"of", 1}});
    const double ppl =
        10.0 + static_cast<double>(sha256(job.model.substr(job.model.rfind('/') - 3)).front()) / 100;
    Json task = {{"task", "ppl"}, {"ppl", ppl}, {"nll", std::log(ppl)}, {"bits_per_byte", 1.0}};
    if (job.models.contains("reference"))
      task.update(
          Json{{"reference_ppl", 10.0}, {"ppl_ratio", ppl / 10}, {"kl", 0.1}, {"top1_agreement", 0.8}});
    Json tasks = Json::array();
    for (std::size_t i = 0; i < job.settings.data("tasks").size(); ++i) tasks.push_back(task);
    return {{"event", "result"}, {"tasks", tasks}};
  }

  Executor engine() {
    return [this](const stage::Job& job, const Sink& events) {
      jobs_.push_back(job.op);
      last_job_ = job;
      return compute(job, events);
    };
  }
  Sink sink() {
    return [this](const Json& event) {
      events_.push_back(event);
      if (on_event_) on_event_(event);
    };
  }

  // Every file below a work folder with its hash, but locks and what a run measures about itself.
  std::map<std::string, std::string> contents(const std::string& work) const {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::recursive_directory_iterator(root_ / work)) {
      const std::string name = entry.path().filename().string();
      if (!entry.is_regular_file() || name == "measured.json" || name == ".lock") continue;
      std::string text = read_text(entry.path());
      if (name.ends_with("lineage.json")) {
        Json lineage = Json::parse(text);
        for (Json& e : lineage) e.erase("measured");
        text = lineage.dump();
      }
      // The test's folders differ from run to run; nothing but their place may.
      for (std::size_t at; (at = text.find((root_ / work).string())) != std::string::npos;)
        text.replace(at, (root_ / work).string().size(), "WORK");
      out[entry.path().lexically_relative(root_ / work).string()] = sha256(text);
    }
    return out;
  }
  int count(const std::string& op) const {
    return static_cast<int>(std::count(jobs_.begin(), jobs_.end(), op));
  }
  std::vector<std::string> states() const {
    std::vector<std::string> out;
    for (const Json& e : events_) {
      if (e.value("event", "") == "stage")
        out.push_back(e["stage"].get<std::string>() + " " + e["state"].get<std::string>());
    }
    return out;
  }

  fs::path root_;
  std::vector<std::string> jobs_;
  std::vector<Json> events_;
  std::vector<int> steps_;
  std::function<void(const Json&)> on_event_;
  stage::Job last_job_;
  int clock_ = 0;
};

}  // namespace slmc::recipe

// The training loop on a toy model: one normaliser, order of data, checkpoints, kills, damage, ranks.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <barrier>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/cancel.h"
#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/rng.h"
#include "engine/train/cross_entropy.h"
#include "engine/train/trainer.h"
#include "io/safetensors.h"
#include "test_folder.h"
#include "train_testing.h"

namespace slmc::engine {
namespace {

using slmc::testing::normal;
using slmc::testing::relative_difference;

constexpr std::int64_t kVocab = 23, kWidth = 6, kTokens = 9;

// Windows of a noisy cycle 0, 1, 2 ..., with documents of random length: what follows a token can be learned, and counts are ragged.
class Cycle : public Batches {
 public:
  Batch at(std::int64_t first, std::int64_t windows) const override {
    for (std::int64_t i = first; i < first + windows; ++i) seen.push_back(i);
    Batch batch{at::empty({windows, kTokens}, at::kLong), at::empty({windows, kTokens}, at::kLong)};
    auto *ids = batch.ids.data_ptr<std::int64_t>(), *documents = batch.document.data_ptr<std::int64_t>();
    for (std::int64_t w = 0; w < windows; ++w) {
      const Rng rng(7, static_cast<std::uint64_t>(first + w));
      std::int64_t token = rng.below(kVocab, 0), document = 0;
      for (std::int64_t t = 0; t < kTokens; ++t) {
        if (t > 0 && rng.uniform(100 + t) < 0.3) ++document;
        ids[w * kTokens + t] = token;
        documents[w * kTokens + t] = document;
        token = rng.uniform(200 + t) < 0.1 ? rng.below(kVocab, 300 + t) : (token + 1) % kVocab;
      }
    }
    return batch;
  }
  mutable std::vector<std::int64_t> seen;
};

// tanh(E[id] W) with its own head; gradients by the fused head and autograd.
struct Toy : Task {
  std::map<std::string, at::Tensor> weights;
  std::function<void()> before_each = [] {};

  Toy() {
    weights["embed"] = normal({kVocab, kWidth}, 1);
    weights["w"] = normal({kWidth, kWidth}, 2);
    weights["head"] = normal({kVocab, kWidth}, 3);
    weights["unused"] = normal({3}, 4);
    for (auto& [name, w] : weights) w.requires_grad_();
  }
  std::vector<ParameterGroup> groups() const {
    return {{{{"embed", weights.at("embed")}, {"unused", weights.at("unused")}}, 0.0, 1.0},
            {{{"head", weights.at("head")}, {"w", weights.at("w")}}, 0.1, 1.0}};
  }
  std::vector<std::string> terms() const override { return {"loss"}; }
  std::int64_t count(const Batch& batch) const override { return next_tokens(batch).ge(0).sum().item<std::int64_t>(); }
  std::vector<double> add_gradients(const Batch& batch, double scale, double) override {
    before_each();
    const at::Tensor hidden = at::embedding(weights["embed"], batch.ids).matmul(weights["w"]).tanh();
    const HeadLoss out = head_loss({.hidden = hidden, .head = weights["head"], .target = next_tokens(batch), .scale = scale}, CrossEntropy());
    out.loss.backward();
    return out.sums;
  }
};

struct Recorder : stage::Events {
  std::vector<Json> all;
  void emit(const Json& event) override { all.push_back(event); }
  int count(const std::string& kind) const {
    int n = 0;
    for (const Json& e : all) n += e["event"] == kind;
    return n;
  }
};

TrainSettings settings(std::int64_t steps, const std::filesystem::path& folder = {}, std::int64_t save_every = 0) {
  TrainSettings s;
  s.batch = 8;
  s.micro_batch = 3;
  s.schedule = {Schedule::Kind::Wsd, Schedule::Decay::OneMinusSqrt, 0.02, 0.0, steps, 2, 3};
  s.folder = folder;
  s.save_every = save_every;
  s.identity = std::make_shared<const Json>(Json{{"seed", 1}, {"data", "abc"}});
  return s;
}

TrainResult run(Toy& toy, const TrainSettings& s, Recorder& events) {
  Single alone;
  return train(toy, toy.groups(), Cycle(), s, alone, events);
}

std::string bytes_of(const Toy& toy) {
  std::string all;
  for (const auto& [name, w] : toy.weights) all.append(static_cast<const char*>(w.const_data_ptr()), w.nbytes());
  return all;
}

class Trainer : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    at::set_num_threads(1);                                // "the same bits" is for equal threads, and forked children have one
  }
  void TearDown() override {
    clear_cancel();
    FolderTest::TearDown();
  }
  std::string uninterrupted(std::int64_t steps) {
    Toy toy;
    Recorder events;
    run(toy, settings(steps), events);
    return bytes_of(toy);
  }
};

TEST(NextTokens, StayInsideWindowAndDocument) {
  Batch batch{at::empty({1, 5}, at::kLong), at::empty({1, 5}, at::kLong)};
  const std::int64_t ids[] = {10, 11, 12, 13, 14}, documents[] = {0, 0, 1, 1, 1}, want[] = {11, -1, 13, 14, -1}, plain[] = {11, 12, 13, 14, -1};
  std::memcpy(batch.ids.mutable_data_ptr(), ids, sizeof ids);
  std::memcpy(batch.document.mutable_data_ptr(), documents, sizeof documents);
  EXPECT_EQ(std::memcmp(next_tokens(batch).const_data_ptr(), want, sizeof want), 0);
  batch.document = at::Tensor();
  EXPECT_EQ(std::memcmp(next_tokens(batch).const_data_ptr(), plain, sizeof plain), 0);
}

TEST_F(Trainer, Learns) {
  Toy toy;
  Recorder events;
  const TrainResult result = run(toy, settings(300), events);
  const std::vector<CurvePoint>& curve = result.state.curve;
  EXPECT_GT(curve.front().means[0], 3.0);                  // ln 23 = 3.1 and more, before it knows anything
  EXPECT_LT(curve.back().means[0], 1.0);                   // the cycle's own entropy is about 0.1 ln 23 + H(0.1) = 0.63
  EXPECT_EQ(events.count("progress"), 300);
  EXPECT_EQ(events.all.back()["done"], 300);
  EXPECT_GT(events.all.back()["tokens_per_s"].get<double>(), 0);
  EXPECT_EQ(result.state.tokens, 300 * 8 * kTokens);
}

TEST_F(Trainer, UsesEachWindowOnceAndInOrder) {
  Toy toy;
  Recorder events;
  Single alone;
  Cycle cycle;
  train(toy, toy.groups(), cycle, settings(5), alone, events);
  std::vector<std::int64_t> want{0, 1, 2, 3, 4, 5, 6, 7, 0};      // and the first again, to learn a window's length
  for (std::int64_t i = 8; i < 40; ++i) want.push_back(i);
  EXPECT_EQ(cycle.seen, want);
}

// The first moment after one update is (1 - b1) g: the gradient, as the checkpoint holds it.
std::map<std::string, at::Tensor> first_gradient(const std::filesystem::path& folder, std::int64_t micro_batch) {
  Toy toy;
  Recorder events;
  TrainSettings s = settings(1, folder, 1);
  s.micro_batch = micro_batch;
  s.clip = 0;
  run(toy, s, events);
  std::map<std::string, at::Tensor> out;
  const auto file = io::SafetensorsFile::open(folder / "step-00000001.safetensors");
  for (const auto& [name, w] : toy.weights) {
    out[name] = at::empty_like(w.detach());
    const io::TensorData data = file.read(name + ".m");
    std::memcpy(out[name].mutable_data_ptr(), data.bytes.data(), data.bytes.size());
  }
  return out;
}

TEST_F(Trainer, OneTimesEightEqualsEightTimesOneWithRaggedLengths) {
  const auto whole = first_gradient(folder_ / "8", 8);
  EXPECT_GT(whole.at("embed").abs().max().item<float>(), 0);
  for (const std::int64_t micro : {1, 3, 5}) {
    const auto parts = first_gradient(folder_ / std::to_string(micro), micro);
    for (const auto& [name, g] : whole) EXPECT_LE(relative_difference(parts.at(name), g), 1e-6) << name << " in parts of " << micro;
  }
}

// Ranks as threads: sums in rank order, handed to all.
class Threads : public Communicator {
 public:
  struct Meeting {
    explicit Meeting(int n) : size(n), gate(n) {}
    int size;
    std::barrier<> gate;
    std::vector<std::vector<double>> values{8};
    std::vector<std::vector<at::Tensor>> tensors{8};
  };
  Threads(Meeting& meeting, int rank) : meeting_(meeting), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return meeting_.size; }
  void sum(std::span<double> values) override {
    meeting_.values[rank_].assign(values.begin(), values.end());
    meeting_.gate.arrive_and_wait();
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = 0;
      for (int r = 0; r < meeting_.size; ++r) values[i] += meeting_.values[r][i];
    }
    meeting_.gate.arrive_and_wait();
  }
  void sum(const std::vector<at::Tensor>& gradients) override {
    meeting_.tensors[rank_] = gradients;
    meeting_.gate.arrive_and_wait();
    std::vector<at::Tensor> sums;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      at::Tensor sum = meeting_.tensors[0][i].clone();
      for (int r = 1; r < meeting_.size; ++r) sum.add_(meeting_.tensors[r][i]);
      sums.push_back(sum);
    }
    meeting_.gate.arrive_and_wait();
    for (std::size_t i = 0; i < gradients.size(); ++i) at::Tensor(gradients[i]).copy_(sums[i]);
    meeting_.gate.arrive_and_wait();
  }

 private:
  Meeting& meeting_;
  int rank_;
};

TEST_F(Trainer, TwoRanksEqualTwoMicroBatches) {
  Toy alone;
  Recorder events;
  TrainSettings s = settings(6);
  s.micro_batch = 4;
  run(alone, s, events);
  Toy ranks[2];
  Threads::Meeting meeting(2);
  std::vector<std::thread> threads;
  for (int r = 0; r < 2; ++r) {
    threads.emplace_back([&, r] {
      Threads communicator(meeting, r);
      Recorder own;
      train(ranks[r], ranks[r].groups(), Cycle(), s, communicator, own);
      EXPECT_EQ(own.count("progress"), r == 0 ? 6 : 0);
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(bytes_of(ranks[0]), bytes_of(ranks[1]));
  for (const auto& [name, w] : alone.weights) EXPECT_LE(relative_difference(ranks[0].weights[name], w), 1e-6) << name;
}

TEST_F(Trainer, StoppedAnywhereAndResumedGivesTheSameBits) {
  const std::string whole = uninterrupted(10);
  for (int stop = 1; stop <= 30; ++stop) {                 // three micro-batches a step: at each of them
    SCOPED_TRACE(stop);
    const auto folder = folder_ / std::to_string(stop);
    Toy first;
    Recorder events;
    int calls = 0;
    first.before_each = [&] {
      if (++calls == stop) request_cancel(2);
    };
    try {
      run(first, settings(10, folder, stop % 2 ? 0 : 3), events);
      EXPECT_EQ(stop, 30);                                 // asked after the last micro-batch: nothing is left to stop
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::Interrupted);
      EXPECT_EQ(e.message(), "stopped as asked; step " + std::to_string(stop / 3) + " of 10 is saved in " + folder.string());
    }
    clear_cancel();
    Toy second;
    const TrainResult result = run(second, settings(10, folder, 0), events);
    EXPECT_EQ(result.state.tokens, 10 * 8 * kTokens);
    EXPECT_EQ(result.state.curve.size(), 10u);
    EXPECT_TRUE(bytes_of(second) == whole);
  }
}

// Runs `body` in a child process; true when it ended by itself.
template <typename Body>
bool lives(Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
  return WIFEXITED(status);
}

TEST_F(Trainer, KilledBetweenAnyTwoWritesAndResumedGivesTheSameBits) {
  const std::string whole = uninterrupted(3);
  int kills = 0;
  for (std::uint64_t n = 1;; ++n, ++kills) {
    SCOPED_TRACE(n);
    const auto folder = folder_ / std::to_string(n);
    const bool done = lives([&] {
      Toy toy;
      Recorder events;
      slmc::testing::die_at_write(n);
      run(toy, settings(3, folder, 1), events);
    });
    Toy toy;
    Recorder events;
    run(toy, settings(3, folder, 1), events);
    EXPECT_EQ(events.count("warning"), 0);
    EXPECT_TRUE(bytes_of(toy) == whole);
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      EXPECT_TRUE(entry.path().filename().string().starts_with("step-")) << entry.path();     // no temporaries are left
    }
    if (done) break;
  }
  EXPECT_GT(kills, 45);                                    // 12 tensors, header, flushes, record and renames, three times
}

TEST_F(Trainer, KeepsTheLastTwoCheckpoints) {
  Toy toy;
  Recorder events;
  run(toy, settings(7, folder_, 2), events);
  EXPECT_EQ(names(), (Names{"step-00000004.json", "step-00000004.safetensors", "step-00000006.json", "step-00000006.safetensors"}));
}

TEST_F(Trainer, DamagedCheckpointIsPassedOver) {
  const std::string whole = uninterrupted(7);
  for (const char* name : {"step-00000006.json", "step-00000006.safetensors"}) {
    for (const double place : {0.0, 0.3, 0.7, 0.99}) {
      SCOPED_TRACE(std::string(name) + " at " + std::to_string(place));
      std::filesystem::remove_all(folder_);
      Toy first, second;
      Recorder events;
      run(first, settings(7, folder_, 2), events);
      std::string text = read_text(folder_ / name);
      text[static_cast<std::size_t>(place * static_cast<double>(text.size()))] ^= 0x40;
      write_text(folder_ / name, text);
      try {
        run(second, settings(7, folder_), events);
        EXPECT_EQ(events.count("warning"), 1);
        EXPECT_TRUE(bytes_of(second) == whole);
      } catch (const Error& e) {                           // the flip hit the identity: another run's checkpoint
        EXPECT_EQ(e.kind(), ErrorKind::Usage);
      }
    }
  }
}

TEST_F(Trainer, AllCheckpointsDamagedStartsAnew) {
  const std::string whole = uninterrupted(5);
  Toy first, second;
  Recorder events;
  run(first, settings(5, folder_, 2), events);
  for (const std::string& name : names()) std::filesystem::resize_file(folder_ / name, 10);
  const TrainResult result = run(second, settings(5, folder_), events);
  EXPECT_FALSE(result.resumed);
  EXPECT_EQ(events.count("warning"), 2);
  EXPECT_TRUE(bytes_of(second) == whole);
}

// What can't be opened is not damaged: the run ends, nothing is removed, and it goes on when the trouble is over.
TEST_F(Trainer, UnreadableCheckpointsAreKept) {
  const std::string whole = uninterrupted(5);
  Toy first;
  Recorder events;
  run(first, settings(5, folder_, 2), events);
  const Names before = names();
  const std::string newest = std::filesystem::path(*before.rbegin()).stem().string();
  for (const std::string& name : {newest + ".json", newest + ".safetensors"}) {
    SCOPED_TRACE(name);
    const auto hidden = folder_ / "hidden";
    std::filesystem::rename(folder_ / name, hidden);
    std::filesystem::create_symlink(name, folder_ / name);                  // a loop: open fails with ELOOP
    Toy toy;
    EXPECT_THROW(run(toy, settings(5, folder_, 2), events), Error);
    EXPECT_TRUE(bytes_of(toy) == bytes_of(Toy()));
    std::filesystem::remove(folder_ / name);
    std::filesystem::rename(hidden, folder_ / name);
    EXPECT_EQ(names(), before);
  }
  EXPECT_EQ(events.count("warning"), 0);
  Toy toy;
  EXPECT_TRUE(run(toy, settings(5, folder_), events).resumed);
  EXPECT_TRUE(bytes_of(toy) == whole);
}

TEST_F(Trainer, ANewerCheckpointIsRefusedAndKept) {
  Toy toy;
  Recorder events;
  run(toy, settings(2, folder_, 1), events);
  const Names before = names();
  for (const char* stem : {"step-00000001", "step-00000002"}) {
    Json record = read_json(folder_ / (std::string(stem) + ".json"), ErrorKind::Model);
    record["slmc_checkpoint"] = 2;
    write_json(folder_ / (std::string(stem) + ".json"), record);
  }
  try {
    run(toy, settings(3, folder_, 1), events);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Unsupported);
    EXPECT_EQ(e.message(), "the checkpoint must be of version 1 or older, but is of version 2");
  }
  EXPECT_EQ(names(), before);
}

// Whole, but not of this model: an error before the first tensor is filled, not a start from step 0.
TEST_F(Trainer, ACheckpointOfOtherTensorsIsRefusedAndKept) {
  Toy toy;
  Recorder events;
  run(toy, settings(2, folder_, 1), events);
  const auto file = folder_ / "step-00000002.safetensors";
  io::SafetensorsWriter::single(file, {}).finish();
  Json record = read_json(folder_ / "step-00000002.json", ErrorKind::Model);
  record["sha256"] = sha256_file(file);
  write_json(folder_ / "step-00000002.json", record);
  const Names before = names();
  Toy second;
  EXPECT_THROW(run(second, settings(3, folder_, 1), events), Error);
  EXPECT_TRUE(bytes_of(second) == bytes_of(Toy()));
  EXPECT_EQ(names(), before);
}

TEST_F(Trainer, AnotherRunsCheckpointIsRefused) {
  Toy toy;
  Recorder events;
  run(toy, settings(3, folder_, 1), events);
  TrainSettings other = settings(3, folder_);
  other.identity = std::make_shared<const Json>(Json{{"seed", 2}, {"data", "abc"}});
  try {
    run(toy, other, events);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Usage);
    EXPECT_EQ(e.message(), "the checkpoint in " + folder_.string() + " must come from this run, but its 'seed' is 1 instead of 2");
  }
  EXPECT_EQ(checkpoint_identity(folder_)->at("seed"), 1);
  EXPECT_FALSE(checkpoint_identity(folder_ / "none"));
}

TEST_F(Trainer, FullDiskLeavesTheOlderCheckpoint) {
  const std::string whole = uninterrupted(4);
  Toy one;
  Recorder quiet;
  slmc::testing::fail_nth_write(0);
  run(one, settings(1, folder_, 1), quiet);
  const std::uint64_t of_one = slmc::testing::fail_nth_write(0);
  EXPECT_GT(of_one, 15u);                                  // 12 tensors, header, flushes, record and renames
  for (std::uint64_t n = of_one + 1;; n += 3) {
    SCOPED_TRACE(n);
    std::filesystem::remove_all(folder_);
    Toy first, second;
    Recorder events;
    slmc::testing::fail_nth_write(n);
    bool failed = false;
    try {
      run(first, settings(4, folder_, 1), events);
    } catch (const Error& e) {
      failed = true;
      EXPECT_EQ(e.kind(), ErrorKind::Resource);
    }
    slmc::testing::fail_nth_write(0);
    const TrainResult result = run(second, settings(4, folder_, 1), events);
    EXPECT_TRUE(result.resumed);
    EXPECT_TRUE(bytes_of(second) == whole);
    if (!failed) break;
  }
}

TEST_F(Trainer, NotFiniteNamesStepAndRemedy) {
  Toy toy;
  Recorder events;
  int calls = 0;
  toy.before_each = [&] {
    if (++calls == 8) {
      at::NoGradGuard off;
      toy.weights["w"].fill_(std::numeric_limits<float>::quiet_NaN());
    }
  };
  try {
    run(toy, settings(10, folder_, 1), events);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Numeric);
    EXPECT_EQ(e.message(), "the loss must be finite, but is nan at step 3 of 10");
    EXPECT_EQ(e.diagnostics()[0].hint, "lower lr (now 0.02) or lengthen warmup; step 2 of 10 is saved in " + folder_.string());
  }
}

TEST_F(Trainer, NothingToPredictIsAnError) {
  struct Single1 : Batches {
    Batch at(std::int64_t, std::int64_t windows) const override { return {at::zeros({windows, 1}, at::kLong), {}}; }
  };
  Toy toy;
  Recorder events;
  Single alone;
  EXPECT_THROW(train(toy, toy.groups(), Single1(), settings(1), alone, events), Error);
}

TEST_F(Trainer, CurveOfALongRunIsThinnedAndWeighted) {
  Toy toy;
  Recorder events;
  const TrainResult result = run(toy, settings(801), events);
  ASSERT_EQ(result.state.curve.size(), 201u);              // every fourth, and the last
  double sum = 0, counted = 0;
  for (int i = 0; i < 4; ++i) {
    const Json& e = events.all[i];
    const Batch batch = Cycle().at(i * 8, 8);
    const double n = toy.count(batch);
    sum += e["loss"].get<double>() * n;
    counted += n;
  }
  EXPECT_NEAR(result.state.curve[0].means[0], sum / counted, 1e-12);
  const Json json = to_json(result, toy.terms());
  EXPECT_EQ(json["curve"].size(), 201u);
  EXPECT_EQ(json["curve"][0]["step"], 4);
  EXPECT_EQ(json["steps"], 801);
}

}  // namespace
}  // namespace slmc::engine

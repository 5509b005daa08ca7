// lib/recipe/run: killed anywhere and run again, full disks, failed stages, two runs at once: the same bytes, or an error that
// costs nothing that was there.
#include <sys/wait.h>

#include "core/cancel.h"
#include "recipe/store.h"
#include "tests/unit/error_text.h"
#include "tests/unit/recipe_run_fixture.h"

namespace slmc::recipe {
namespace {

using RunTest = RunFixture;
using Names = std::vector<std::string>;

// ---- killed ----

// Runs in a child process that dies at the n-th event, as by SIGKILL; true when it came to its end first.
template <typename Test>
bool die_at_event(Test& test, int n, const std::function<void()>& body) {
  ::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    int seen = 0;
    test.on_event_ = [&](const Json&) {
      if (++seen == n) ::_exit(9);
    };
    body();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

struct KillTest : RunFixture {
  using RunFixture::on_event_;
};

TEST_F(KillTest, KilledAtEachEventAndRunAgainGivesTheSameBytes) {
  run_it(kRecipe, "calm");
  const auto wanted = contents("calm");
  ASSERT_GT(wanted.size(), 20u);
  int deaths = 0;
  for (int n = 1;; ++n) {
    const bool finished = die_at_event(*this, n, [&] { run_it(kRecipe, "killed"); });
    run_it(kRecipe, "killed");
    ASSERT_EQ(contents("killed"), wanted) << "killed at event " << n;
    fs::remove_all(root_ / "killed");
    if (finished) break;
    ++deaths;
  }
  EXPECT_GT(deaths, 30);
}

TEST_F(KillTest, TrainingGoesOnFromItsCheckpoint) {
  EXPECT_FALSE(die_at_event(*this, 1000, [&] {
    on_event_ = [&](const Json& e) {
      if (e.value("what", "") == "training" && e["done"] == 2) ::_exit(9);
    };
    run_it();
  }));
  run_it();
  EXPECT_EQ(steps_, std::vector<int>{2});
  const Names all = states();
  EXPECT_NE(std::find(all.begin(), all.end(), "heal resumed"), all.end());
  EXPECT_NE(std::find(all.begin(), all.end(), "width reused"), all.end());
}

TEST_F(KillTest, AWholeFolderThatOnlyLacksItsNameIsTakenUp) {
  const RunResult r = run_it();
  fs::rename(r.rows[2].folder, partial_folder(r.rows[2].folder));  // killed between manifest and rename
  jobs_.clear();
  run_it();
  EXPECT_EQ(jobs_, Names{});
  EXPECT_TRUE(fs::exists(r.rows[2].folder));
}

TEST_F(KillTest, LeftoversOfOtherSettingsAreSweptButNotThoseInUse) {
  const fs::path dead = root_ / "work/.02-width-00000000", live = root_ / "work/.03-heal-00000000";
  fs::create_directories(dead / "resume");
  fs::create_directories(live);
  write_text(root_ / "work/.02-width-more-00000000", "not ours");
  const FolderLock lock(lock_folder(root_ / "work/03-heal-00000000"));
  run_it();
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_TRUE(fs::exists(live));
  EXPECT_TRUE(fs::exists(root_ / "work/.02-width-more-00000000"));
}

TEST_F(RunTest, AnInterruptKeepsWhatIsThereAndNamesTheStage) {
  on_event_ = [&](const Json& e) {
    if (e.value("what", "") == "training" && e["done"] == 1)
      throw Error(ErrorKind::Interrupted, "stopped as asked; the checkpoint is saved");
  };
  const std::string text = error_text([&] { run_it(); });
  EXPECT_EQ(text,
            "error: stopped as asked; the checkpoint is saved\n  in stage 'heal' (distill); finished stages "
            "are kept, the same command goes on from here");
  on_event_ = nullptr;
  steps_.clear();
  run_it();
  EXPECT_EQ(steps_, (std::vector<int>{1, 2}));
}

TEST_F(RunTest, ARequestToStopIsHeardBetweenStages) {
  on_event_ = [&](const Json& e) {
    if (e.value("event", "") == "stage" && e["stage"] == "depth" && e["state"] == "done") request_cancel(2);
  };
  EXPECT_THROW(run_it(), Error);
  clear_cancel();
  on_event_ = nullptr;
  jobs_.clear();
  run_it();
  EXPECT_EQ(count("drop"), 0);
}

// ---- failures ----

TEST_F(RunTest, AFullDiskAtAnyWriteIsAnErrorAndTheNextRunGivesTheSameBytes) {
  run_it(kRecipe, "calm");
  const auto wanted = contents("calm");
  testing::fail_nth_write(1u << 30);
  run_it(kRecipe, "count");
  const std::uint64_t writes = testing::fail_nth_write(0);
  ASSERT_GT(writes, 100u);
  int failed = 0;
  for (std::uint64_t n = 1; n <= writes; ++n) {
    testing::fail_nth_write(n);
    try {
      run_it(kRecipe, "full");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::Resource) << error.text();
      ++failed;
    }
    testing::fail_nth_write(0);
    run_it(kRecipe, "full");
    ASSERT_EQ(contents("full"), wanted) << "write " << n;
    fs::remove_all(root_ / "full");
  }
  EXPECT_GT(failed, 100);
}

TEST_F(RunTest, AFailedStageLeavesNothingButCheckpoints) {
  EXPECT_THROW(run(
                   chain(), options(),
                   [&](const stage::Job& job, const Sink& s) -> Json {
                     if (job.op != "prune") return compute(job, s);
                     fs::create_directories(job.out);
                     write_text(fs::path(job.out) / "half", "x");
                     throw Error(ErrorKind::Numeric, "the loss must be finite, but is NaN");
                   },
                   sink()),
               Error);
  Names names;
  for (const auto& entry : fs::directory_iterator(root_ / "work"))
    names.push_back(entry.path().filename().string().substr(0, 8));
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (Names{".locks", "01-depth", "engine.j", "eval"}));
}

TEST_F(RunTest, AStageThatWritesNothingOrNonsenseIsAnError) {
  const auto with = [&](const std::function<void(const stage::Job&)>& write) {
    return error_text([&] {
      run(
          chain(), options(),
          [&](const stage::Job& job, const Sink& s) -> Json {
            if (job.op == "eval") return compute(job, s);
            write(job);
            return Json{{"event", "result"}};
          },
          sink());
    });
  };
  EXPECT_NE(
      with([](const stage::Job&) {}).find("the stage must have written its model, but 'model' is missing"),
      std::string::npos);
  EXPECT_NE(with([](const stage::Job& job) {
              fs::create_directories(job.out);
            }).find("a model folder must hold config.json"),
            std::string::npos);
}

TEST_F(RunTest, AnEvaluationOfTheWrongFormIsNotKept) {
  EXPECT_THROW(run(
                   chain(), options(),
                   [&](const stage::Job& job, const Sink& s) -> Json {
                     return job.op == "eval" ? Json{{"tasks", 3}} : compute(job, s);
                   },
                   sink()),
               Error);
  EXPECT_NO_THROW(run_it());
}

TEST_F(RunTest, TwoRunsOfOneStageDoNotMeet) {
  const Chain c = chain();
  const fs::path folder = lock_folder(c.stages[0].folder);
  const FolderLock lock(folder);
  const std::string text = error_text([&] { run(c, options(), engine(), sink()); });
  EXPECT_EQ(text,
            folder.string() + ": error: the folder must be free, but process " + std::to_string(::getpid()) +
                " is using it\nhint: wait for it to end, or stop it\n"
                "  in stage 'depth' (drop); finished stages are kept, the same command goes on from here");
}

// The other run makes everything after this one has looked what is there: it finds that under the lock, and makes nothing again.
TEST_F(RunTest, WhatAnotherRunMadeMeanwhileIsReused) {
  bool met = false;
  on_event_ = [&](const Json& e) {
    if (e.value("event", "") != "run" || met) return;
    met = true;
    run_it();
    jobs_.clear();
  };
  const RunResult r = run_it();
  EXPECT_EQ(jobs_, Names{});
  for (std::size_t i = 1; i < r.rows.size(); ++i) EXPECT_TRUE(r.rows[i].reused);
  on_event_ = nullptr;
  run_it(kRecipe, "calm");
  EXPECT_EQ(contents("work"), contents("calm"));
}

// Runs the recipe in a child process, again when another process has a stage; exits 0 when it came to its end.
template <typename Body>
pid_t insist(const Body& body) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  for (;;) {
    try {
      body();
      ::_exit(0);
    } catch (const Error& error) {
      if (error.message().find("the folder must be free, but process ") == 0) continue;
      ::fprintf(stderr, "%s\n", error.text().c_str());
      ::_exit(1);
    }
  }
}

TEST_F(RunTest, RunsAtOnceEndWithTheSameBytes) {
  run_it(kRecipe, "calm");
  const auto wanted = contents("calm");
  for (int round = 0; round < 20; ++round) {
    std::vector<pid_t> children;
    for (int i = 0; i < 3; ++i) children.push_back(insist([&] { run_it(); }));
    for (const pid_t child : children) {
      int status = 0;
      ::waitpid(child, &status, 0);
      EXPECT_EQ(status, 0) << round;
    }
    ASSERT_EQ(contents("work"), wanted) << round;
    fs::remove_all(root_ / "work");
  }
}

// Found by the test above, once in some hundred rounds: the stage was taken for damaged, made again and replaced under the writer's feet.
TEST_F(RunTest, AStageIsWholeWhileItsLineageIsWritten) {
  const RunResult r = run_it();
  write_text(r.rows[1].path / (temporary_prefix("lineage.json") + "1-0"), "[");
  jobs_.clear();
  run_it();
  EXPECT_EQ(jobs_, Names{});
}

TEST_F(RunTest, AStageThatCannotBeReplacedStays) {
  const RunResult r = run_it();
  const auto before = contents("work");
  const fs::path& finished = r.rows[2].folder;
  EXPECT_THROW(publish(partial_folder(finished), finished), Error);  // nothing to put in its place
  EXPECT_EQ(contents("work"), before);
}

// Where names can't be exchanged: aside, in, and back when the second rename fails.
TEST_F(RunTest, FileSystemsWithoutExchangeLoseNoStageEither) {
  const fs::path finished = root_ / "work/01-a-00000000", partial = partial_folder(finished);
  deny_exchange(true);
  write_text(finished / "f", "old");
  int n = 1;
  for (bool failed = true; failed; ++n) {
    write_text(partial / "f", "new");
    testing::fail_nth_write(static_cast<std::uint64_t>(n));
    failed = false;
    try {
      publish(partial, finished);
    } catch (const Error& error) {
      failed = true;
      EXPECT_EQ(error.kind(), ErrorKind::Resource);
      EXPECT_EQ(read_text(finished / "f"), "old");
      EXPECT_EQ(read_text(partial / "f"), "new");
      EXPECT_EQ(contents("work").size(), 2u);
    }
  }
  deny_exchange(false);
  EXPECT_EQ(n, 5);  // exchange and two renames failed, the fourth went through
  EXPECT_EQ(contents("work").size(), 1u);
  EXPECT_EQ(read_text(finished / "f"), "new");
}

TEST_F(KillTest, AStageMovedAsideIsTakenBack) {
  const RunResult r = run_it();
  const auto before = contents("work");
  fs::rename(r.rows[2].folder, partial_folder(r.rows[2].folder).string() + ".old");
  jobs_.clear();
  run_it();
  EXPECT_EQ(jobs_, Names{});
  EXPECT_EQ(contents("work"), before);
}

TEST_F(RunTest, TheDiskIsCheckedBeforeAnythingStarts) {
  RunOptions o = options();
  o.least_free_disk = 1ull << 60;
  try {
    run(chain(), o, engine(), sink());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Resource);
    EXPECT_NE(error.message().find("the disk must have about 1152.9 PB free, but has "), std::string::npos)
        << error.message();
  }
  EXPECT_EQ(jobs_, Names{});
}

}  // namespace
}  // namespace slmc::recipe

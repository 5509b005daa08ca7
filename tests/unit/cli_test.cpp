// The command line without a terminal: every example parses, wrong lines are refused with a way out, tables hold together,
// progress says the right numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "apps/slmc/command_line.h"
#include "apps/slmc/help.h"
#include "apps/slmc/progress.h"
#include "core/error.h"

namespace slmc::cli {
namespace {

namespace fs = std::filesystem;

testing::AssertionResult contains(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "'" << part << "' is not in:\n" << text;
}

Parsed parse_line(const std::string& line) {
  std::vector<std::string> words = split_words(line);
  EXPECT_FALSE(words.empty());
  EXPECT_EQ(words.front(), "slmc") << line;
  words.erase(words.begin());
  return parse(words);
}

std::string refusal(const std::string& line) {
  try {
    parse_line(line);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::Usage);
    return error.text();
  }
  return "accepted";
}

// Lines of documents that begin with `slmc ` after blanks, a prompt or "# Run:"; continued lines are joined, comments cut.
std::vector<std::string> commands_in(const fs::path& file) {
  std::ifstream in(file);
  std::vector<std::string> out;
  std::string line;
  while (std::getline(in, line)) {
    if (line.rfind("# Run:", 0) == 0 && line.find("slmc ") != std::string::npos) line = line.substr(line.find("slmc "));
    const auto start = line.find_first_not_of(" $");
    if (start == std::string::npos || line.compare(start, 5, "slmc ") != 0) continue;
    std::string command = line.substr(start);
    while (!command.empty() && command.back() == '\\' && std::getline(in, line)) {
      command.pop_back();
      command += line;
    }
    for (const char* end : {"  ", " #", " |", " >", " &&"}) command = command.substr(0, command.find(end));
    out.push_back(command);
  }
  return out;
}

TEST(CommandLine, EveryExampleOfHelpParses) {
  int seen = 0;
  for (const Command& command : commands()) {
    EXPECT_FALSE(command.examples.empty()) << command.name;
    for (const Example& example : command.examples) {
      SCOPED_TRACE(example.line);
      EXPECT_EQ(parse_line(example.line).command, &command);
      ++seen;
    }
  }
  EXPECT_GE(seen, static_cast<int>(commands().size()));
}

TEST(CommandLine, EveryCommandInTheDocumentsParses) {
  const fs::path root = SLMC_SOURCE_DIR;
  for (const char* document : {"README.md", "CONTRIBUTING.md"}) {
    for (const std::string& line : commands_in(root / document)) {
      SCOPED_TRACE(document + (": " + line));
      EXPECT_NE(parse_line(line).command, nullptr);
    }
  }
}

TEST(CommandLine, EveryRecipeSaysHowToRunIt) {
  int recipes = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(fs::path(SLMC_SOURCE_DIR) / "configs/recipes")) {
    if (entry.path().extension() != ".yaml") continue;
    SCOPED_TRACE(entry.path().string());
    const std::vector<std::string> lines = commands_in(entry.path());
    ASSERT_FALSE(lines.empty());
    EXPECT_EQ(parse_line(lines.front()).command->name, "run");
    EXPECT_TRUE(contains(lines.front(), entry.path().filename().string()));
    ++recipes;
  }
  EXPECT_GE(recipes, 1);
}

TEST(CommandLine, UnknownWordsAreRefusedWithASuggestion) {
  EXPECT_EQ(refusal("slmc insepct m.gguf"), "error: unknown subcommand 'insepct'\nhint: did you mean 'inspect'?");
  EXPECT_EQ(refusal("slmc inspect m.gguf --jsno"), "error: unknown option '--jsno' of 'slmc inspect'\nhint: did you mean '--json'?");
  EXPECT_EQ(refusal("slmc recipe chekc r.yaml"), "error: unknown subcommand 'recipe chekc'\nhint: did you mean 'recipe check'?");
  EXPECT_TRUE(contains(refusal("slmc recipe"), "a word must follow 'slmc recipe'"));
  EXPECT_TRUE(contains(refusal("slmc --jsno"), "did you mean '--json'?"));
}

TEST(CommandLine, TheFirstUnknownOptionIsNamedWhateverFollows) {
  EXPECT_TRUE(contains(refusal("slmc inspect m.gguf --ration 0.2"), "unknown option '--ration' of 'slmc inspect'"));
  EXPECT_TRUE(contains(refusal("slmc inspect --first=1 --second 2 m.gguf"), "'--first'"));
}

TEST(CommandLine, ValuesAreChecked) {
  EXPECT_TRUE(contains(refusal("slmc run r.yaml --threads many"), "the option --threads must be a whole number from 0 to 4096, but is 'many'"));
  EXPECT_TRUE(contains(refusal("slmc run r.yaml --keep lst"), "did you mean 'last'?"));
  EXPECT_TRUE(contains(refusal("slmc run r.yaml --threads"), "the option --threads must have a value (N), but has none"));
  EXPECT_TRUE(contains(refusal("slmc run r.yaml --work --json"), "the option --work must have a value (DIR), but has none"));
  EXPECT_TRUE(contains(refusal("slmc run r.yaml --json=yes"), "the option --json takes no value, but has 'yes'"));
  EXPECT_TRUE(contains(refusal("slmc run r.yaml --until a --until b"), "--until must be given once"));
  EXPECT_TRUE(contains(refusal("slmc run r.yaml extra"), "takes no further word, but 'extra' follows"));
  EXPECT_TRUE(contains(refusal("slmc run"), "'slmc run' must be given a RECIPE"));
  EXPECT_TRUE(contains(refusal("slmc completion tcsh"), "must be one of bash, zsh, fish, but is 'tcsh'"));
}

TEST(CommandLine, GlobalOptionsMayStandInFrontOfTheSubcommand) {
  const Parsed parsed = parse_line("slmc -q --threads 2 run r.yaml");
  ASSERT_NE(parsed.command, nullptr);
  EXPECT_EQ(parsed.command->name, "run");
  EXPECT_TRUE(parsed.arguments.flag("quiet"));
  EXPECT_EQ(parsed.arguments.integer("threads"), 2);
  EXPECT_EQ(parsed.arguments.text("RECIPE"), "r.yaml");
}

TEST(CommandLine, RepeatedOptionsKeepTheirOrder) {
  const Parsed parsed = parse_line("slmc run r.yaml --set a.b=1 --set c=2");
  EXPECT_EQ(parsed.arguments.all("set"), (std::vector<std::string>{"a.b=1", "c=2"}));
}

TEST(CommandLine, HelpIsAskedForWithoutTheRest) {
  EXPECT_TRUE(parse_line("slmc run --help").help);
  EXPECT_TRUE(parse_line("slmc -h").help);
  EXPECT_EQ(parse_line("slmc -h").command, nullptr);
}

TEST(CommandLine, AfterTwoDashesEverythingIsAWord) {
  EXPECT_EQ(parse_line("slmc run -- --odd.yaml").arguments.text("RECIPE"), "--odd.yaml");
}

TEST(Words, SplitUndoesJoin) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"a", "b c", ""}, {"it's", "$HOME", "x\\y", "\"q\""}, {"--set", "width.ffn=[1, 2]"}}) {
    EXPECT_EQ(split_words(join_words(words)), words);
  }
}

TEST(Table, RowsAreSound) {
  std::set<std::string> names;
  for (const Command& command : commands()) {
    SCOPED_TRACE(command.name);
    EXPECT_TRUE(names.insert(command.name).second);
    EXPECT_NE(command.run, nullptr);
    EXPECT_FALSE(command.summary.empty());
    EXPECT_EQ(command.shares.json, !command.json.empty()) << "--json and its documentation go together";
    std::set<std::string> words;
    for (const Option& option : all_options(command)) {
      EXPECT_TRUE(words.insert(option_name(option.setting)).second) << option.setting.name << " twice";
      EXPECT_TRUE(!option.letter || words.insert(std::string("-") + option.letter).second) << option.letter << " twice";
      EXPECT_FALSE(option.setting.help.empty()) << option.setting.name;
    }
  }
}

TEST(Help, NamesEveryOptionAndEveryField) {
  for (const Command& command : commands()) {
    const std::string text = command_help(command);
    for (const Option& option : all_options(command)) EXPECT_TRUE(contains(text, option_name(option.setting))) << command.name;
    for (const JsonField& field : command.json) EXPECT_TRUE(contains(text, "\n  " + field.name + " ")) << command.name;
  }
}

TEST(Help, NoLineIsWiderThanATerminalOf110) {
  std::vector<std::string> texts = {program_help(true), program_help(false)};
  for (const Command& command : commands()) texts.push_back(command_help(command));
  for (const std::string& text : texts) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 130u) << line;
  }
}

// ---- progress -----------------------------------------------------------------------------------------------------

TEST(Progress, PlainLinesComeEveryThirtySeconds) {
  ProgressLine line(false, 80);
  int shown = 0;
  std::string last;
  for (int second = 0; second <= 120; ++second) {
    const auto text = line.update({.what = "block", .done = second, .of = 200}, 1000.0 + second);
    if (text) {
      ++shown;
      last = *text;
      EXPECT_EQ(second % 30, 0);
    }
  }
  EXPECT_EQ(shown, 4);
  EXPECT_EQ(last, "block  60 %  120/200  1/s  1 min 20 s left");
}

TEST(Progress, ShortPiecesOfWorkShareTheThirtySeconds) {
  ProgressLine line(false, 80);
  int shown = 0;
  for (int i = 0; i < 60; ++i) shown += line.update({.what = "piece " + std::to_string(i), .done = 1, .of = 1}, 10.0 + i).has_value();
  EXPECT_EQ(shown, 1);
}

TEST(Progress, BarIsDrawnAtMostTenTimesASecondAndAtTheEnd) {
  ProgressLine line(true, 80);
  int shown = 0;
  for (int i = 0; i <= 1000; ++i) shown += line.update({.what = "x", .done = i, .of = 1000}, 5.0 + 0.001 * i).has_value();
  EXPECT_GE(shown, 9);
  EXPECT_LE(shown, 13);
}

TEST(Progress, BarNeverExceedsTheTerminal) {
  for (int width : {20, 40, 80}) {
    ProgressLine line(true, width);
    const auto text = line.update({.what = "a long name of what is being done, é included", .done = 3, .of = 7, .metrics = {{"loss", 2.5}}}, 1);
    ASSERT_TRUE(text);
    EXPECT_LT(static_cast<int>(text->size()), width + 4);
  }
}

TEST(Progress, SpeedComesFromTheWorkerWhenItKnows) {
  ProgressLine line(true, 200);
  line.update({.what = "train", .done = 0, .of = 100}, 10);
  const auto text = line.update({.what = "train", .done = 50, .of = 100, .metrics = {{"loss", 2.5}, {"tokens_per_s", 1234}}}, 20);
  ASSERT_TRUE(text);
  EXPECT_EQ(*text, "train [##########----------]  50 %  50/100  loss 2.5  1.2 k tokens/s  10.0 s left");
}

TEST(Progress, OneEstimateOfTheTimeLeftAndMemoryInUnits) {
  ProgressLine line(false, 80);
  line.update({.what = "train", .done = 0, .of = 100, .metrics = {}}, 0);
  const auto text = line.update({.what = "train", .done = 50, .of = 100,
                                 .metrics = {{"gradient_norm", 0.5}, {"seconds_left", 12}, {"peak_bytes", 2.5e8}}}, 40);
  ASSERT_TRUE(text);
  EXPECT_TRUE(contains(*text, "gradient norm 0.5"));
  EXPECT_TRUE(contains(*text, "40.0 s left"));
  EXPECT_EQ(text->find("seconds_left"), std::string::npos);
}

}  // namespace
}  // namespace slmc::cli

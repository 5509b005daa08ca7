#include "apps/slmc/shared_options.h"

#include <iterator>
#include <utility>

namespace slmc::cli {
namespace {

using stage::Setting;
using stage::Type;

void append(std::vector<Option>& to, bool wanted, std::vector<Option> options) {
  if (wanted) to.insert(to.end(), std::make_move_iterator(options.begin()), std::make_move_iterator(options.end()));
}

Option grouped(Option option, const char* group) {
  option.group = group;
  return option;
}

const char* const kRunning = "Running";
const char* const kOutput = "Output";

std::vector<Option> device_options() {
  return {grouped(text_option("device", 0, "NAME", "Where to compute: cpu, cuda or cuda:N.", "cpu"), kRunning),
          grouped(choice_option("gemm", "Matrix product path; auto measures the candidates and takes the fastest correct one.", "auto",
                                {"auto", "mkl", "onednn"}),
                  kRunning)};
}

Option threads_option() {
  return grouped(integer_option("threads", "Threads; 0 takes all cores.", "0", 0, 4096, ""), kRunning);
}

Option max_ram_option() {
  return grouped({.setting = {.name = "max_ram", .type = Type::Bytes, .help = "Stop rather than use more memory than this.", .least = 256e6}}, kRunning);
}

Option seed_option() {
  return grouped({.setting = {.name = "seed", .type = Type::Integer, .fallback = "0", .help = "Seed of everything random.",
                              .least = 0, .most = 9007199254740992.0}},
                 kRunning);
}

}  // namespace

Option path_option(std::string name, char letter, std::string value, std::string help) {
  return {.setting = {.name = std::move(name), .type = Type::Path, .help = std::move(help)},
          .letter = letter, .value = std::move(value)};
}

Option text_option(std::string name, char letter, std::string value, std::string help, std::string fallback) {
  Option out = {.setting = {.name = std::move(name), .type = Type::Text, .help = std::move(help)},
                .letter = letter, .value = std::move(value)};
  if (!fallback.empty()) out.setting.fallback = std::move(fallback);
  return out;
}

Option flag_option(std::string name, char letter, std::string help) {
  return {.setting = {.name = std::move(name), .type = Type::Boolean, .help = std::move(help)}, .letter = letter};
}

Option integer_option(std::string name, std::string help, std::string fallback, double least, double most, std::string unit) {
  Option out = {.setting = {.name = std::move(name), .type = Type::Integer, .help = std::move(help), .least = least, .most = most,
                            .unit = std::move(unit)}};
  if (!fallback.empty()) out.setting.fallback = std::move(fallback);
  return out;
}

Option choice_option(std::string name, std::string help, std::string fallback, std::vector<std::string> choices) {
  Option out = {.setting = {.name = std::move(name), .type = Type::Choice, .help = std::move(help), .choices = std::move(choices)}};
  if (!fallback.empty()) out.setting.fallback = std::move(fallback);
  return out;
}

Option repeated(Option option) {
  option.repeat = true;
  return option;
}

Option required(Option option) {
  option.setting.required = true;
  return option;
}

std::vector<Option> options_of(const std::vector<Setting>& table, const std::string& group) {
  std::vector<Option> out;
  for (const Setting& setting : table) {
    out.push_back({.setting = setting, .negatable = setting.type == Type::Boolean, .group = group});
  }
  return out;
}

std::vector<Option> shared_options(const Shares& shares) {
  std::vector<Option> out;
  append(out, shares.device, device_options());
  append(out, shares.threads, {threads_option()});
  append(out, shares.max_ram, {max_ram_option()});
  append(out, shares.seed, {seed_option()});
  append(out, shares.dry_run, {grouped(flag_option("dry_run", 'n', "Check everything, print what would happen, change nothing."), kRunning)});
  append(out, shares.force, {grouped(flag_option("force", 'f', "Replace what is already there."), kRunning)});
  append(out, shares.json, {grouped(flag_option("json", 0, "Print one JSON document instead of text."), kOutput)});
  append(out, shares.plain, {grouped(flag_option("plain", 0, "Print tables tab separated, for scripts."), kOutput)});
  append(out, shares.events, {grouped(path_option("events", 0, "FILE", "Append events as JSON lines to this file."), kOutput)});
  append(out, true, {grouped(flag_option("quiet", 'q', "Print results, warnings and errors only."), kOutput),
                     grouped(flag_option("verbose", 'v', "Say more about what is done."), kOutput),
                     grouped(flag_option("no_color", 0, "No colour and no progress bar's control codes."), kOutput),
                     grouped(flag_option("help", 'h', "Print this text."), kOutput)});
  return out;
}

std::vector<Option> every_shared_option() {
  return shared_options({.json = true, .plain = true, .device = true, .threads = true, .max_ram = true, .seed = true,
                         .events = true, .dry_run = true, .force = true});
}

}  // namespace slmc::cli

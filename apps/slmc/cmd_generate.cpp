// generate, chat: text from a model.
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <iostream>
#include <nlohmann/json.hpp>

#include "apps/slmc/commands.h"
#include "apps/slmc/engine_process.h"
#include "apps/slmc/event_log.h"
#include "apps/slmc/executor.h"
#include "apps/slmc/shared_options.h"
#include "apps/slmc/signals.h"
#include "core/cancel.h"
#include "stage/measures.h"

namespace slmc::cli {
namespace {

void take_settings(stage::Job& job, const Context& context, const stage::StageInfo& info) {
  for (const stage::Setting& s : info.settings) {
    const std::string text = context.args.text(s.name);
    if (context.args.has(s.name) || s.fallback) job.settings.set(s.name, stage::parse_value(s, std::string_view(text)));
  }
}

std::string read_all_input() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

// The model's headers, opened before LibTorch is loaded and before anything is printed.
ir::Model load_speaker(const Context& context, const std::string& where) {
  const ir::Model model = load_model(context, where);
  if (model.tokenizer()) return model;
  throw Error(ErrorKind::Model, "the model must have a tokenizer, but " + where + " has none", "a Hugging Face folder keeps it in tokenizer.json");
}

// Prompt and answer share the model's context.
void require_room(const ir::Model& model, const std::string& prompt, std::int64_t tokens) {
  const std::int64_t length = model.decoder().context;
  const auto taken = static_cast<std::int64_t>(model.tokenizer()->encode(prompt).size()) + (model.tokenizer()->special().add_bos ? 1 : 0);
  if (length <= 0 || taken + tokens <= length) return;
  if (taken >= length) {
    throw Error(ErrorKind::Usage, fmt::format("the prompt must leave room in the model's context of {} tokens, but has {}", length, taken), "shorten it");
  }
  throw Error(ErrorKind::Usage, fmt::format("the option --tokens must be at most {}, the model's context of {} tokens less the prompt's {}, but is {}",
                                            length - taken, length, taken, tokens));
}

int run_generate(Context& context) {
  const std::string model = context.args.text("MODEL");
  const ir::Model speaker = load_speaker(context, model);
  stage::Job job = new_job(context, "generate", model);
  take_settings(job, context, stage::generate_info());
  const std::string prompt = context.args.text("prompt") == "-" ? read_all_input() : context.args.text("prompt");
  job.settings.set("prompt", {.value = prompt});
  require_room(speaker, prompt, job.settings.integer("tokens"));
  if (!context.term.json()) {
    context.term.piece(prompt);
    const Json result = run_alone(context, job);
    context.term.piece("\n");
    context.term.detail(fmt::format("{} tokens, {:.1f} tokens/s, stopped by {}", result["tokens"].get<std::int64_t>(),
                                    result["tokens_per_s"].get<double>(), result["stop"].get<std::string>()));
    return kDone;
  }
  // One document: the pieces are not shown as they come.
  Json result = make_executor(context)(job, [](const Json&) {});
  context.term.document(context.command, {{"model", model}, {"text", result["text"]}, {"ids", result["ids"]}, {"prompt_tokens", result["prompt_tokens"]},
                                     {"tokens", result["tokens"]}, {"stop", result["stop"]}, {"tokens_per_s", result["tokens_per_s"]},
                                     {"measured", result["measured"]}});
  return kDone;
}

// One line from the person; nothing at the end of input. Throws when asked to stop.
std::optional<std::string> read_line(Terminal& term, bool person) {
  if (person) term.piece("\n> ");
  std::string line;
  char c = 0;
  for (;;) {
    const ssize_t n = read(STDIN_FILENO, &c, 1);
    if (n < 0 && errno == EINTR) cancel_point("the chat is not kept");
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return line.empty() ? std::nullopt : std::optional(line);
    if (c == '\n') return line;
    line += c;
  }
}

// Events until the turn is over; false when the engine has ended.
bool show_turn(EngineProcess& engine, EventLog& log, std::optional<Json>& last) {
  while (std::optional<Json> event = engine.next()) {
    const std::string kind = (*event)["event"];
    if (kind == "result" || kind == "error") {
      last = std::move(event);
      return false;
    }
    if (kind == "turn") return true;
    log.see(*event);
  }
  return false;
}

int run_chat(Context& context) {
  const std::string model = context.args.text("MODEL");
  load_model(context, model);
  stage::Job job = new_job(context, "chat", model);
  take_settings(job, context, stage::chat_info());
  EventLog log(context.term, context.args.text("events"));
  EngineProcess engine(require_engine(context), job, true);
  const bool person = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
  if (person) context.term.note("Ctrl-C ends an answer, Ctrl-D the chat; /reset forgets what was said");
  std::optional<Json> last;
  bool open = true;
  while (open) {
    const std::optional<std::string> line = read_line(context.term, person);
    if (!line) break;
    if (line->empty()) continue;
    if (*line == "/reset") {
      engine.send({{"reset", true}});
      continue;
    }
    engine.send({{"user", *line}});
    set_interrupt_ends_turn(true);
    open = show_turn(engine, log, last);
    set_interrupt_ends_turn(false);
    if (open) context.term.piece("\n");
  }
  engine.close_input();
  while (open && show_turn(engine, log, last)) {
  }
  engine.finish(last.has_value());
  if (last && (*last)["event"] == "error") throw stage::error_from_event(*last);
  return kDone;
}

Shares shares(bool json) {
  return {.json = json, .device = true, .threads = true, .max_ram = true, .seed = true, .events = true};
}

}  // namespace

Command generate_command() {
  return {.name = "generate",
          .summary = stage::generate_info().summary,
          .loads = Loads::Engine,
          .run = run_generate,
          .shares = shares(true),
          .positionals = {{.name = "MODEL", .help = "The model that writes."}},
          .options = options_of(stage::generate_info().settings, "Writing"),
          .examples = {{"slmc generate models/m.gguf --prompt 'Once upon a time' --tokens 64", "the likeliest token, 64 times"},
                       {"slmc generate models/m.gguf --prompt - --temperature 0.8 --top-p 0.95 --seed 7", "the prompt from standard input, sampled"}},
          .json = {{"model", "as given"}, {"text", "what was generated, without the prompt"}, {"ids", "its tokens"},
                   {"prompt_tokens", "of the prompt"}, {"tokens", "generated"}, {"stop", "eos, length or stop"},
                   {"tokens_per_s", "while generating"}, {"measured", "seconds, cpu_seconds, peak_bytes"}}};
}

Command chat_command() {
  return {.name = "chat",
          .summary = stage::chat_info().summary,
          .loads = Loads::Engine,
          .run = run_chat,
          .shares = shares(false),
          .positionals = {{.name = "MODEL", .help = "A model with a chat template."}},
          .options = options_of(stage::chat_info().settings, "Writing"),
          .examples = {{"slmc chat models/m.gguf", "one line is one message"},
                       {"slmc chat models/m.gguf --system 'Answer in one sentence.' --temperature 0.7", "with a system message, sampled"}}};
}

}  // namespace slmc::cli

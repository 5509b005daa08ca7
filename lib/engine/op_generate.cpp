// The ops generate and chat.
#include <fmt/format.h>
#include <sys/select.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/cancel.h"
#include "engine/chat_template.h"
#include "engine/generate.h"
#include "engine/ops.h"
#include "engine/prompt.h"
#include "stage/measures.h"

namespace slmc::engine {
namespace {

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

Sampling sampling_of(const stage::Job& job) {
  const stage::Settings& s = job.settings;
  return {.temperature = s.number("temperature"), .top_k = s.integer("top_k"), .top_p = s.number("top_p"), .seed = job.seed};
}

std::string_view to_string(Session::Stop stop) {
  return stop == Session::Stop::Eos ? "eos" : stop == Session::Stop::Length ? "length" : "stop";
}

// Longest text that the model can take: its context, where it has a limit.
std::int64_t capacity_of(const Arch& arch, std::int64_t wanted) {
  if (arch.sizes.pos > 0) return std::min(wanted, arch.sizes.pos - arch.options.pos_offset);
  return wanted;
}

struct Answer {
  std::vector<std::int32_t> ids;
  std::string text;
  Session::Stop stop = Session::Stop::Length;
  double tokens_per_s = 0;
};

// Generates and streams text events.
Answer answer(Session& session, const ir::Model& model, const stage::Job& job, const std::set<std::int32_t>& ends, stage::Events& events) {
  Answer out;
  Utf8Stream stream;
  const auto say = [&](const std::string& text) {
    out.text += text;
    if (!text.empty()) events.emit({{"event", "text"}, {"text", text}});
  };
  const double start = now_s();
  out.stop = session.generate(
      job.settings.integer("tokens"), sampling_of(job), ends,
      [&](std::int32_t id) {
        out.ids.push_back(id);
        say(stream.push(model.tokenizer()->piece(id)));
      },
      [] { return cancel_requested() != 0; });
  say(stream.finish());
  out.tokens_per_s = static_cast<double>(out.ids.size()) / std::max(1e-9, now_s() - start);
  return out;
}

Json run_generate(OpContext& context) {
  const ir::Model& model = context.model();
  const std::vector<std::int32_t> prompt = prompt_ids(model, context.job.settings.text("prompt"));
  Loaded loaded = load(model, at::kFloat, context.device);
  const std::int64_t wanted = static_cast<std::int64_t>(prompt.size()) + context.job.settings.integer("tokens");
  Session session(loaded, capacity_of(loaded.arch, wanted), at::kFloat, context.device);
  session.feed(prompt);
  const Answer a = answer(session, model, context.job, end_tokens(model), context.events);
  cancel_point("the text so far has been given");
  return {{"text", a.text},         {"ids", a.ids},
          {"prompt_tokens", prompt.size()}, {"tokens", a.ids.size()},
          {"stop", to_string(a.stop)},      {"tokens_per_s", a.tokens_per_s}};
}

// The next line of standard input; nothing at its end, or when asked to stop while waiting.
std::optional<std::string> next_line(std::string& pending) {
  for (;;) {
    if (const auto end = pending.find('\n'); end != std::string::npos) {
      std::string line = pending.substr(0, end);
      pending.erase(0, end + 1);
      return line;
    }
    fd_set ready;
    FD_ZERO(&ready);
    FD_SET(STDIN_FILENO, &ready);
    timeval wait{0, 100'000};
    const int n = select(STDIN_FILENO + 1, &ready, nullptr, nullptr, &wait);
    if (cancel_requested()) return std::nullopt;
    if (n <= 0) continue;
    char buffer[4096];
    const ssize_t got = read(STDIN_FILENO, buffer, sizeof buffer);
    if (got == 0) return std::nullopt;
    if (got > 0) pending.append(buffer, static_cast<std::size_t>(got));
  }
}

Json run_chat(OpContext& context) {
  constexpr std::int64_t kRoom = 1 << 20;                  // tokens of a conversation, when the model sets no limit
  const ir::Model& model = context.model();
  const ChatMl format = chat_format(model);
  const auto& settings = context.job.settings;
  const auto system = settings.has("system") ? std::optional(settings.text("system")) : std::nullopt;
  std::set<std::int32_t> ends = end_tokens(model);
  if (const auto end = tokenizer_of(model).id_of(kChatMlEnd)) ends.insert(*end);
  Loaded loaded = load(model, at::kFloat, context.device);
  const auto fresh = [&] { return std::make_unique<Session>(loaded, capacity_of(loaded.arch, kRoom), at::kFloat, context.device); };
  auto session = fresh();
  std::string pending;
  std::int64_t turns = 0;
  while (const auto line = next_line(pending)) {
    if (line->empty()) continue;
    const Json said = parse_json(*line, "standard input", ErrorKind::Usage);
    if (said.is_object() && said.contains("reset")) {
      session = fresh();
      continue;
    }
    if (!said.is_object() || !said.contains("user") || !said["user"].is_string()) {
      throw Error(ErrorKind::Usage, "a line of the chat must be {\"user\": \"...\"} or {\"reset\": true}, but is " + *line);
    }
    const std::string front = session->length() == 0 ? format.opening(system) : std::string(kChatMlEnd) + "\n";
    session->feed(tokenizer_of(model).encode(front + format.user(said["user"].get<std::string>())));
    const Answer a = answer(*session, model, context.job, ends, context.events);
    clear_cancel();                                        // an interrupt ends the turn only
    context.events.emit({{"event", "turn"}, {"tokens", a.ids.size()}, {"tokens_per_s", a.tokens_per_s}, {"stop", to_string(a.stop)}});
    ++turns;
  }
  return {{"turns", turns}};
}

}  // namespace

void add_generate(Ops& ops) {
  add_op(ops, stage::generate_info(), run_generate);
  add_op(ops, stage::chat_info(), run_chat);
}

}  // namespace slmc::engine

#include "engine/chat_template.h"

#include <nlohmann/json.hpp>

namespace slmc::engine {
namespace {

// A template as its tokens: white space outside of quoted strings and of text between tags is dropped, so that spellings that differ only
// in it compare equal; "- %}" controls become plain tags.
std::string squeezed(std::string_view text) {
  std::string out;
  char quote = 0;
  bool tag = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote) {
      if (c == '\n') {                          // Jinja reads both spellings of a line end alike
        out += "\\n";
      } else {
        out += c;
      }
      if (c == quote && text[i - 1] != '\\') quote = 0;
      continue;
    }
    if (!tag && (text.substr(i, 2) == "{%" || text.substr(i, 2) == "{{")) {
      tag = true;
      out += text.substr(i, 2);
      i += text.substr(i + 2, 1) == "-" ? 2 : 1;
      continue;
    }
    if (tag && (c == '\'' || c == '"')) quote = c;
    if (tag && c == '-' && (text.substr(i + 1, 2) == "%}" || text.substr(i + 1, 2) == "}}")) continue;
    if (tag && (text.substr(i, 2) == "%}" || text.substr(i, 2) == "}}")) {
      out += text.substr(i, 2);
      ++i;
      tag = false;
      continue;
    }
    if (c == ' ' || c == '\n' || c == '\t' || c == '\r') continue;
    out += c;
  }
  return out;
}

// Takes `piece` off the front of `text`.
bool take(std::string_view& text, std::string_view piece) {
  if (text.substr(0, piece.size()) != piece) return false;
  text.remove_prefix(piece.size());
  return true;
}

std::string unescaped(std::string_view quoted) {
  std::string out;
  for (std::size_t i = 0; i < quoted.size(); ++i) {
    if (quoted[i] != '\\' || i + 1 == quoted.size()) {
      out += quoted[i];
      continue;
    }
    const char next = quoted[++i];
    out += next == 'n' ? '\n' : next == 't' ? '\t' : next;
  }
  return out;
}

constexpr std::string_view kLoop = "{%formessageinmessages%}";
constexpr std::string_view kNoSystem = "{%ifloop.firstandmessages[0]['role']!='system'%}";
constexpr std::string_view kSystemFront = "{{'<|im_start|>system\\n";
constexpr std::string_view kSystemBack = "<|im_end|>\\n'}}{%endif%}";
constexpr std::string_view kMessages[] = {
    "{{'<|im_start|>'+message['role']+'\\n'+message['content']+'<|im_end|>'+'\\n'}}{%endfor%}",
    "{{'<|im_start|>'+message['role']+'\\n'+message['content']+'<|im_end|>\\n'}}{%endfor%}",
    "{{'<|im_start|>'+message.role+'\\n'+message.content+'<|im_end|>\\n'}}{%endfor%}",
};
constexpr std::string_view kGeneration = "{%ifadd_generation_prompt%}{{'<|im_start|>assistant\\n'}}{%endif%}";

std::optional<ChatMl> match(std::string_view text) {
  ChatMl format;
  if (!take(text, kLoop)) return std::nullopt;
  if (take(text, kNoSystem)) {
    const auto end = text.find(kSystemBack);
    if (end == std::string_view::npos || !take(text, kSystemFront)) return std::nullopt;
    const std::string_view message = text.substr(0, end - kSystemFront.size());
    if (message.find('\'') != std::string_view::npos) return std::nullopt;
    format.default_system = unescaped(message);
    text.remove_prefix(message.size() + kSystemBack.size());
  }
  bool messages = false;
  for (const std::string_view form : kMessages) messages = messages || take(text, form);
  return messages && text == kGeneration ? std::optional(format) : std::nullopt;
}

}  // namespace

std::string ChatMl::turn(std::string_view role, std::string_view text) const {
  return "<|im_start|>" + std::string(role) + "\n" + std::string(text) + std::string(kChatMlEnd) + "\n";
}

std::string ChatMl::opening(const std::optional<std::string>& system) const {
  const auto& text = system ? system : default_system;
  return text ? turn("system", *text) : "";
}

std::string ChatMl::user(std::string_view text) const { return turn("user", text) + "<|im_start|>assistant\n"; }

ChatMl parse_chat_template(std::string_view text, const std::string& file) {
  if (const auto format = match(squeezed(text))) return *format;
  throw Error(ErrorKind::Unsupported, Place{file, 0, 0, 1, {}},
              "the chat template must be ChatML in its simple form, but begins '" + std::string(text.substr(0, 120)) + "'",
              "slmc generate takes the prompt as it is, with whatever markers the model needs written into it");
}

ChatMl chat_format(const ir::Model& model) {
  const auto& files = model.side_files();
  if (const auto it = files.find("chat_template.jinja"); it != files.end()) return parse_chat_template(it->second, it->first);
  if (const auto it = files.find("tokenizer_config.json"); it != files.end()) {
    const Json config = parse_json(it->second, it->first, ErrorKind::Model);
    if (config.is_object() && config.contains("chat_template") && config["chat_template"].is_string()) {
      return parse_chat_template(config["chat_template"].get<std::string>(), it->first);
    }
  }
  if (const Json& meta = model.config(); meta.is_object() && meta.contains("tokenizer.chat_template")) {
    return parse_chat_template(meta["tokenizer.chat_template"].get<std::string>(), model.source());
  }
  throw Error(ErrorKind::Unsupported, "the model must carry a chat template, but " + model.source() + " has none",
              "slmc generate continues any text");
}

}  // namespace slmc::engine

#pragma once
// The prompt format that a model was tuned with. Chat templates are programs in Jinja; we run none. The one common form, ChatML, is
// recognised in its simple spellings, everything else is refused by name rather than guessed.
#include <optional>
#include <string>
#include <string_view>

#include "ir/model.h"

namespace slmc::engine {

// <|im_start|>ROLE\nTEXT<|im_end|>\n for each message, then <|im_start|>assistant\n.
struct ChatMl {
  std::optional<std::string> default_system;      // put first when the conversation has no system message
  std::string turn(std::string_view role, std::string_view text) const;
  // A conversation's start: the given system message, else the default, else nothing.
  std::string opening(const std::optional<std::string>& system) const;
  std::string user(std::string_view text) const;  // a user message and the start of the answer
};
inline constexpr std::string_view kChatMlEnd = "<|im_end|>";

// Text of a chat template -> its format. Error(Unsupported) quoting the template's front when it isn't simple ChatML.
ChatMl parse_chat_template(std::string_view text, const std::string& file);
// The model's own: chat_template.jinja, tokenizer_config.json's chat_template, or GGUF's tokenizer.chat_template. Error(Unsupported) when
// it carries none.
ChatMl chat_format(const ir::Model& model);

}  // namespace slmc::engine

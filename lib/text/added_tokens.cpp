#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace slmc::text {
namespace {

bool word_at(std::string_view text, std::size_t at) {
  int bytes = 0;
  return class_table()[code_point(text.data() + at, bytes)] & kWord;
}

std::size_t skip_space(std::string_view text, std::size_t at) {
  int bytes = 0;
  while (at < text.size() && class_table()[code_point(text.data() + at, bytes)] & kSpace)
    at += static_cast<std::size_t>(bytes);
  return at;
}

std::size_t skip_space_back(std::string_view text, std::size_t at) {
  while (at > 0) {
    const std::size_t before = last_character(text.substr(0, at));
    int bytes = 0;
    if (!(class_table()[code_point(text.data() + before, bytes)] & kSpace)) break;
    at = before;
  }
  return at;
}

}  // namespace

void TokenFinder::add(std::string_view text, const AddedToken& token) {
  if (text.empty()) return;
  if (nodes_.empty()) roots_.fill(-1);
  std::int32_t node = -1;
  for (const char byte : text) {
    std::int32_t next = node < 0 ? roots_[static_cast<unsigned char>(byte)] : child(node, byte);
    if (next < 0) {
      next = static_cast<std::int32_t>(nodes_.size());
      nodes_.push_back({.byte = byte});
      std::int32_t& head =
          node < 0 ? roots_[static_cast<unsigned char>(byte)] : nodes_[static_cast<std::size_t>(node)].child;
      nodes_.back().sibling = node < 0 ? -1 : head;
      head = next;
    }
    node = next;
  }
  nodes_[static_cast<std::size_t>(node)].token = static_cast<std::int32_t>(tokens_.size());
  tokens_.push_back(token);
}

std::int32_t TokenFinder::child(std::int32_t node, char byte) const {
  std::int32_t at = nodes_[static_cast<std::size_t>(node)].child;
  while (at >= 0 && nodes_[static_cast<std::size_t>(at)].byte != byte)
    at = nodes_[static_cast<std::size_t>(at)].sibling;
  return at;
}

std::int32_t TokenFinder::longest(std::string_view text, std::size_t at, std::size_t& length) const {
  std::int32_t found = -1;
  std::int32_t node = roots_[static_cast<unsigned char>(text[at])];
  for (std::size_t i = at + 1; node >= 0; ++i) {
    const std::int32_t token = nodes_[static_cast<std::size_t>(node)].token;
    if (token >= 0) found = token, length = i - at;
    if (i == text.size()) break;
    node = child(node, text[i]);
  }
  return found;
}

// What `tokenizers` does, word for word: the search goes on behind the token itself, so that white space
// taken by rstrip may still hold a match.
void TokenFinder::split(std::string_view text, std::vector<Part>& parts) const {
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = 0;
    const std::int32_t found = nodes_.empty() ? -1 : longest(text, at, length);
    if (found < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(found)];
    Span span{at, at + length};
    at = span.end;
    if (token.single_word && ((span.begin > 0 && word_at(text, last_character(text.substr(0, span.begin)))) ||
                              (span.end < text.size() && word_at(text, span.end))))
      continue;
    if (token.lstrip) span.begin = std::max(skip_space_back(text, span.begin), done);
    if (token.rstrip) span.end = skip_space(text, span.end);
    if (done < span.begin) parts.push_back({kNoId, {done, span.begin}});
    parts.push_back({token.id, span});
    done = span.end;
  }
  if (done < text.size()) parts.push_back({kNoId, {done, text.size()}});
}

}  // namespace slmc::text

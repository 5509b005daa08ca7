#pragma once
// Inside recipe: the pieces that turn a document's tree into a Recipe. All problems go to one list; every
// function returns what it could read. Looking for the entry points? See recipe.h.
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "recipe/document.h"
#include "recipe/recipe.h"

namespace slmc::recipe {

using Problems = std::vector<Diagnostic>;

struct DecodeContext {
  const stage::Registry& registry;
  std::filesystem::path folder;  // of relative paths
  Problems& problems;
  bool flags = false;            // the tree stands for a command line: hints name options
};

// The scalar keys of each group; `data`, `stages` and the like are groups and decoded by name.
const std::vector<stage::Setting>& recipe_table();  // name seed device report model
const std::vector<stage::Setting>& data_table();    // seq samples field label skip_last seed licence
const std::vector<stage::Setting>& domain_table();  // weight field skip_last licence
const std::vector<stage::Setting>& eval_table();    // every_stage reference
const std::vector<std::string>& top_level_keys();

// Reads the scalar keys of `map` by `table`, the file's --set marked as such; keys in neither `table` nor
// `groups` are problems. `where`: "in stage 'width' (prune)".
stage::Settings read_group(const Node& map, const std::vector<stage::Setting>& table,
                           const std::vector<std::string>& groups, const std::string& where,
                           Problems& problems);
// Null when the key is absent; a problem when it is there and of another kind. `what`: "the key 'stages' must
// be a list".
const Node* read_kind(const Node& map, std::string_view key, Node::Kind kind, const std::string& what,
                      Problems& problems);

std::filesystem::path absolute_path(const std::filesystem::path& path, const std::filesystem::path& folder);
// $id and hf:... stay; anything else is a path.
std::string absolute_model(const std::string& model, const std::filesystem::path& folder);
// "did you mean 'x'?" or ""
std::string suggestion(std::string_view word, const std::vector<std::string>& candidates);

DataSection decode_data(const Node& node, const std::string& name, std::uint64_t seed,
                        const DecodeContext& context);
std::vector<StageEntry> decode_stages(const Node& list, const Recipe& so_far, const DecodeContext& context);
EvalSection decode_eval(const Node& map, const Recipe& so_far, const DecodeContext& context);
std::vector<Gate> decode_gates(const Node& map, const Recipe& so_far, const DecodeContext& context);
// Whether "$x" names the input or a stage; a problem at `place` when not.
void check_reference(const std::string& model, const std::vector<StageEntry>& stages, const Place& place,
                     const std::string& what, Problems& problems);

// Puts "width.ffn=1280" and the like into the tree.
void apply_overrides(Node& root, const std::vector<std::string>& set, Problems& problems);

// Writes a value at "width.ffn" or "seed" of the tree; `what` says in problems who wanted it: "a --set".
void set_value(Node& root, std::string_view path, Node value, const Place& place, const std::string& what, Problems& problems);

// A recipe's tree under one combination of its sweep's values, and those values: {"cut.keep_first", "12"}. One without values where
// there is no sweep.
struct Variant {
  Node tree;
  std::vector<std::pair<std::string, std::string>> values;
};
std::vector<Variant> variants_of(const Node& root, Problems& problems);

// Sections as they stand in a recipe, without what is the default anyway; paths below `folder` relative to it (write.cpp).
Json eval_json(const EvalSection& eval, const std::filesystem::path& folder);
Json gates_json(const std::vector<Gate>& gates);

Recipe decode_tree(const Node& root, const std::string& text, const std::string& file,
                   const DecodeContext& context);

}  // namespace slmc::recipe

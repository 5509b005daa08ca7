// A command line such as `slmc prune MODEL -o OUT --ffn 1280` as a recipe: the same tree, decoded by the same
// code.
#include <fmt/format.h>

#include <algorithm>

#include "recipe/decode.h"

namespace slmc::recipe {
namespace {

Place option_place(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return {"--" + name, 0, 0, 1, {}};
}

Node map_node(const Place& place) {
  Node node;
  node.kind = Node::Kind::Map;
  node.place = place;
  return node;
}

Node scalar_node(std::string text, const Place& place) {
  Node node;
  node.kind = Node::Kind::Scalar;
  node.text = std::move(text);
  node.place = place;
  node.flag = true;
  return node;
}

void put(Node& map, std::string key, Node value, const Place& place) {
  map.entries.push_back({std::move(key), std::move(value), place});
}

Node data_node(const StageRequest& request) {
  Node data = map_node({});
  for (const auto& [name, files] : request.data) {
    const Place place = option_place(name);
    Node section = map_node(place), list;
    list.kind = Node::Kind::List;
    list.place = place;
    for (const std::string& file : files) list.items.push_back(scalar_node(file, place));
    put(section, "files", std::move(list), place);
    put(section, "seq", scalar_node(std::to_string(request.seq), option_place("seq")), option_place("seq"));
    if (name == "calib")
      put(section, "samples", scalar_node(std::to_string(request.samples), option_place("samples")),
          option_place("samples"));
    put(data, name, std::move(section), place);
  }
  return data;
}

}  // namespace

Recipe one_stage_recipe(const StageRequest& request, const stage::Registry& registry) {
  Node with = map_node({});
  for (const auto& [name, text] : request.settings)
    put(with, name, scalar_node(text, option_place(name)), option_place(name));
  Node stage = map_node({});
  put(stage, "id", scalar_node(request.use, {}), {});
  put(stage, "use", scalar_node(request.use, {}), {});
  put(stage, "with", std::move(with), {});
  Node stages;
  stages.kind = Node::Kind::List;
  stages.items.push_back(std::move(stage));
  Node root = map_node({});
  put(root, "slmc", scalar_node(std::to_string(kRecipeVersion), {}), {});
  put(root, "name", scalar_node(request.use, {}), {});
  put(root, "model", scalar_node(request.model, {}), {});
  put(root, "seed", scalar_node(std::to_string(request.seed), option_place("seed")), option_place("seed"));
  if (!request.data.empty()) put(root, "data", data_node(request), {});
  put(root, "stages", std::move(stages), {});

  Problems problems;
  Recipe recipe = decode_tree(root, "", "", {registry, request.folder, problems, true});
  throw_problems(std::move(problems), "", ErrorKind::Usage);
  recipe.text = to_yaml(recipe, request.folder);
  return recipe;
}

}  // namespace slmc::recipe

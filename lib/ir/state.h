#pragma once
// What stands behind a Model; private to lib/ir.
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "ir/model.h"
#include "ir/resolve.h"
#include "ir/rope.h"
#include "ir/template.h"

namespace slmc::ir {

using Index = std::shared_ptr<const std::vector<std::int64_t>>;  // kept entries along one dimension; null:
                                                                 // all, in order

// Where a logical tensor's values come from: read, then gathered, then stored as `format`.
struct Value {
  std::function<io::TensorData()> base;  // empty: a model of shapes only
  std::vector<Index> take;               // one per dimension, or empty
  std::string format;                    // "F16", "q4_0"; empty: as it is
};

struct Model::State {
  std::shared_ptr<const Template> arch;
  Templates templates;  // all that were known when it was loaded; what it is written to is read with them
  Decoder decoder;
  Sizes sizes;
  std::vector<Rope> ropes;  // [block]
  std::vector<TensorSpec> tensors;
  std::vector<Value> values;  // [tensor]
  std::map<std::string, std::size_t, std::less<>> by_name;
  std::string source, container;
  Json config = Json::object();
  std::shared_ptr<const io::GgufMetadata> metadata;  // GGUF: all of it, vocabulary included
  std::optional<text::Tokenizer> tokenizer;
  std::map<std::string, std::string> side_files;
  Origin origin;
  std::shared_ptr<const Model> ancestor;  // whose hash becomes origin.ancestor when that is still empty
  Json lineage = Json::array();

  mutable std::mutex hash_lock;
  mutable std::string content;  // content hash once it was asked for
};

// Sizes, decoder, ropes and tensor table of a resolved config; values are still empty.
std::shared_ptr<Model::State> make_state(std::shared_ptr<const Template> arch, const std::string& container,
                                         Resolved resolved,
                                         const std::function<bool(const std::string&)>& exists);
void index_tensors(Model::State& state);  // fills by_name and gives derived tensors their values
Facts facts_of(const Model::State& state);
std::string first_ancestor(const Model& model);  // origin.ancestor, worked out when needed

// One stored tensor of a file, behind one face for both containers.
struct StoredValue {
  std::vector<std::int64_t> shape;
  std::string dtype;  // "F32", "q4_1"
  std::function<io::TensorData()> read;
};
// The logical tensors that a file's stored ones hold. Error(Model) for missing, unexpected and misshapen
// tensors.
std::shared_ptr<Model::State> assemble(std::shared_ptr<const Template> arch, const std::string& container,
                                       const ConfigSource& source,
                                       std::map<std::string, StoredValue, std::less<>> stored);

// load() of a file or folder with templates that were loaded before.
Model load_with(const std::string& path, const Templates& templates);

// The tokenizer of a model folder and the small text files that travel along.
void read_companions(Model::State& state, const std::filesystem::path& folder);

// Pieces of `data` that a part names, in logical order; quantized data stays so when only rows move.
io::TensorData extract(const io::TensorData& data, const Part& part, const std::vector<std::int64_t>& shape,
                       double add);
// Entries along each dimension.
io::TensorData take(const io::TensorData& data, const std::vector<Index>& indices);
// The values as type `format` holds them ("F32", "F16", "BF16", "q4_0" ...).
io::TensorData stored_as(const io::TensorData& data, const std::string& format, const std::string& name);
void require_finite(const io::TensorData& data, const std::string& name, const std::string& source);

}  // namespace slmc::ir

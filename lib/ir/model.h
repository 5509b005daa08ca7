#pragma once
// A model is data: resolved decoder options, axes with sizes, a table of named logical tensors, a tokenizer, an origin.
// Immutable and cheap to copy; weights are read on demand, one tensor at a time, from the files behind it.
//
// Logical names, the words of plans and methods ({i} = block number):
//   embed  pos  norm  norm.bias  head                          [vocab, hidden] [pos, hidden] [hidden] [hidden] [vocab, hidden]
//   block.{i}.attn.norm[.bias]  block.{i}.ffn.norm[.bias]      [hidden]
//   block.{i}.attn.q | k | v | o [.bias]                       [out, in]; q rows "kv q (two freq + pass)", k rows "kv (two freq + pass)",
//                                                              v rows "kv vd", o columns "kv q vd"
//   block.{i}.attn.q_norm | k_norm                             [two freq + pass]
//   block.{i}.attn.rope                                        [freq] angular frequencies, fp64; derived, in no file
//   block.{i}.ffn.gate | up | down [.bias]                     [ffn, hidden] [ffn, hidden] [hidden, ffn]
// Logical form: matrices [out, in], unfused, half-split rotary order, norm gain as multiplier, head absent when tied.
//
// Axes ({i} block, {g} group): vocab  hidden  pos  block  block.{i}.kv  block.{i}.kv.{g}.q  block.{i}.freq  block.{i}.pass
//   block.{i}.vd  block.{i}.ffn        `two` is a fixed axis of size 2.
// (M1) every block has its own sizes; inside a block all groups hold the same number of query heads.
// (M2) attention of a block is absent when its kv size is 0, the feed-forward part when its ffn size is 0; absent parts have no
//      tensors, their norm included.
// (M3) resolve(write(model)) == model, for every container that `check` says can hold it.
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "io/tensor_data.h"
#include "ir/decoder.h"
#include "ir/dim.h"
#include "text/tokenizer.h"

namespace slmc::ir {

struct Template;      // template.h

struct BlockSizes {
  std::int64_t kv = 0;      // key/value groups
  std::int64_t q = 0;       // query heads per group
  std::int64_t freq = 0;    // rotary pairs per head
  std::int64_t pass = 0;    // head entries without rotation
  std::int64_t vd = 0;      // value entries per head
  std::int64_t ffn = 0;
  std::int64_t head_dim() const { return 2 * freq + pass; }
  std::int64_t heads() const { return kv * q; }
  bool operator==(const BlockSizes&) const = default;
};

struct Sizes {
  std::int64_t vocab = 0, hidden = 0;
  std::int64_t pos = 0;                 // learned positions; 0 = none
  std::vector<BlockSizes> blocks;
  std::int64_t of(std::string_view axis, std::int64_t block = -1) const;   // "block.ffn" or "ffn" with a block number
  bool operator==(const Sizes&) const = default;
};

struct TensorSpec {
  std::string name;                     // "block.3.attn.q"
  std::int64_t block = -1;              // 3, or -1
  std::vector<Dim> dims;                // what each dimension's entries are
  std::vector<std::int64_t> shape;
  std::string stored_dtype;             // "F32", "BF16", "q4_1": what the file holds
  bool derived = false;                 // in no file (rope)
};

// Where each kept index came from in the first ancestor; composed by apply. Empty vectors mean "all, in order".
struct Origin {
  std::string ancestor;                                  // content hash of the first ancestor
  std::vector<std::int64_t> blocks;                      // block i was block blocks[i]
  std::map<std::string, std::vector<std::int64_t>> axes; // "hidden", "block.0.ffn" (this model's block numbers) -> indices
  bool operator==(const Origin&) const = default;
};

class Model {
 public:
  struct State;
  explicit Model(std::shared_ptr<const State> state) : state_(std::move(state)) {}

  const Decoder& decoder() const;
  const Sizes& sizes() const;
  std::int64_t blocks() const { return static_cast<std::int64_t>(sizes().blocks.size()); }
  const Template& arch() const;
  const std::string& family() const;                     // "llama"
  const std::string& source() const;                     // the folder or file it was loaded from, for messages
  const std::string& container() const;                  // "hf" or "gguf"

  const std::vector<TensorSpec>& tensors() const;        // in forward order
  const TensorSpec* find(std::string_view name) const;   // nullptr when the model has no such tensor
  bool has(std::string_view name) const { return find(name) != nullptr; }
  // The logical tensor: zero copy when the file holds it contiguously, else gathered. Quantized tensors stay quantized
  // when only rows move. NaN and infinities are Error(Model) naming the tensor (checked while reading).
  io::TensorData read(std::string_view name) const;

  const Json& config() const;                            // the container's own config, verbatim (GGUF: metadata as JSON, no vocabulary)
  const std::optional<text::Tokenizer>& tokenizer() const;
  // Files of a Hugging Face folder carried along verbatim: tokenizer_config.json, special_tokens_map.json, generation_config.json, chat_template.jinja ...
  const std::map<std::string, std::string>& side_files() const;
  const Origin& origin() const;
  const Json& lineage() const;                           // lineage.json, or an empty array

  std::string shape_hash() const;                        // family, sizes, decoder: siblings share it
  std::string content_hash() const;                      // all logical values, config and tokenizer; reads everything once, cached

  const State& state() const { return *state_; }         // for ir's own sources

 private:
  std::shared_ptr<const State> state_;
};

// A Hugging Face folder, a .gguf file, or "hf:org/name" in the local cache (HF_HOME layout; the caller passes its root).
struct LoadOptions {
  std::filesystem::path hf_cache;                        // empty: "hf:" is refused
  std::filesystem::path templates;                       // folder of more templates, searched before the built-in ones
};
Model load(const std::string& where, const LoadOptions& options = {});
// The folder of hf:org/name in the cache; other names as they are.
std::filesystem::path find_model(const std::string& where, const LoadOptions& options);

// A model of given shape without weights (read() is Error(Model)): plans, costs and laws on shapes need no file.
Model shape_only(const Json& hf_config);
// The same with weights made by a function of (name, shape): tests and generated laws. Values are F64 or F32 TensorData.
Model with_weights(const Json& hf_config, const std::function<io::TensorData(const TensorSpec&)>& make);
// The model that a folder's config.json describes, with its tokenizer; weights are made by a function of (tensor, number of blocks), one
// at a time and each time anew: where training from scratch starts.
Model from_config(const std::filesystem::path& folder,
                  const std::function<io::TensorData(const TensorSpec&, std::int64_t blocks)>& make, const LoadOptions& options = {});

}  // namespace slmc::ir

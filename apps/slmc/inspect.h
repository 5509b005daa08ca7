#pragma once
// What `slmc inspect` and `slmc diff` know about a model from its headers: a struct, then a document or tables.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "ir/cost.h"
#include "ir/model.h"
#include "report/table.h"

namespace slmc::cli {

struct TypeShare {
  std::string type;                     // "BF16", "q4_1"
  std::int64_t tensors = 0, parameters = 0, bytes = 0;
};

struct Summary {
  std::string source, family, container;
  std::uint64_t file_bytes = 0;         // of the file, or of all weight files of the folder
  std::string shape_hash;
  ir::Cost cost;
  ir::Sizes sizes;
  ir::Decoder decoder;
  std::vector<TypeShare> types;         // by bytes, most first
  bool tokenizer = false;
  std::int64_t tokens = 0;
  std::string tokenizer_hash;
  std::size_t lineage = 0;              // entries
};

Summary summarise(const ir::Model& model);
Json to_json(const Summary& summary);
report::Table table_of(const Summary& summary);
// One value when all blocks agree, else the list: 1536, or [1536, 1280].
std::string per_block(const ir::Sizes& sizes, std::int64_t ir::BlockSizes::* axis);

}  // namespace slmc::cli

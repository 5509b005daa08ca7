// Any bytes give a file that holds its invariants, or one Error of kind Model. Never a crash, a hang, more
// memory than a small multiple of the file's size, or another exception.
#include <algorithm>

#include "io/gguf.h"
#include "io/gguf_layout.h"
#include "tests/fuzz/fuzz.h"

using namespace slmc;
using namespace slmc::fuzz;

namespace {

void check_invariants(const io::GgufFile& file, std::size_t size) {
  std::vector<io::GgufTensor> order = file.tensors();
  std::erase_if(order, [](const io::GgufTensor& t) { return t.bytes == 0; });
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  std::uint64_t end = 0;
  for (const io::GgufTensor& t : order) {
    require(t.offset >= end, "tensors are disjoint");
    require(t.bytes <= size && t.offset <= size - t.bytes, "tensors lie inside the file");
    require(t.offset % file.alignment() == 0, "tensors are aligned");
    end = t.offset + t.bytes;
  }
  for (const io::GgufTensor& t : file.tensors()) {
    const io::TensorData data = file.read(t);
    require(data.to_floats().size() == static_cast<std::size_t>(data.count()), "a tensor converts");
    if (data.quantized) {
      const std::span<const std::byte> stored = file.bytes(t);
      const std::vector<std::byte> packed = io::pack_blocks(t.type, *data.quantized);
      require(std::equal(packed.begin(), packed.end(), stored.begin(), stored.end()), "pack(unpack(b)) == b");
    }
  }
}

// Writing what was read and reading it again must be a fixed point. (The first writing may differ: gaps
// between tensors close, and a signalling NaN of the metadata becomes a quiet one.)
void check_round_trip(const io::GgufFile& file) {
  std::vector<io::GgufWriter::Entry> entries;
  std::uint64_t data = 0;
  for (const io::GgufTensor& t : file.tensors()) {
    entries.push_back({t.name, t.type, t.shape});
    data = io::gguf_aligned(data + t.bytes, file.alignment());
  }
  const std::string header = io::gguf_header(file.metadata(), entries);
  const std::string bytes = header + std::string(data, '\0');
  const auto again = io::GgufFile::parse(std::as_bytes(std::span(bytes)), "again");
  require(io::gguf_header(again.metadata(), entries) == header, "writing again gives the same header");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto file = io::GgufFile::parse(as_bytes(data, size), "fuzz");
    check_invariants(file, size);
    check_round_trip(file);
  } catch (const Error& error) {
    require_refusal(error, ErrorKind::Model);
  }
  return 0;
}

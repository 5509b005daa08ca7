// Any bytes give a file that holds its invariants, or one Error of kind Model. Never a crash, a hang, more
// memory than the file's size justifies, or another exception.
#include <cmath>

#include "core/bytes.h"
#include "io/safetensors.h"
#include "tests/fuzz/fuzz.h"

using namespace slmc;
using namespace slmc::fuzz;

namespace {

void check_invariants(const io::SafetensorsFile& file, std::size_t size) {
  std::uint64_t end = 0;
  for (const io::StoredTensor& t : file.tensors()) {
    require(end == 0 || t.offset == end, "tensors lie back to back");
    require(t.bytes == element_count(t.shape, t.name) * size_of(t.dtype), "sizes agree");
    end = t.offset + t.bytes;
    const io::TensorData data = file.read(t.name);
    require(data.bytes.size() == t.bytes && data.count() >= 0, "a tensor reads as stored");
    require(data.to_floats().size() == static_cast<std::size_t>(data.count()), "a tensor converts");
  }
  require(end == 0 || end == size, "the last tensor ends the file");
}

void check_round_trip(const io::SafetensorsFile& file) {
  std::string bytes = io::safetensors_header(file.tensors(), file.metadata());
  for (const io::StoredTensor& t : file.tensors()) {
    const auto data = file.read(t.name).bytes;
    bytes.append(reinterpret_cast<const char*>(data.data()), data.size());
  }
  const auto again = io::SafetensorsFile::parse(std::as_bytes(std::span(bytes)), "again");
  require(again.metadata() == file.metadata(), "metadata is written as read");
  require(again.tensors().size() == file.tensors().size(), "tensors are written as read");
  require(io::safetensors_header(again.tensors(), again.metadata()) ==
              bytes.substr(0, io::safetensors_header(file.tensors(), file.metadata()).size()),
          "writing again gives the same header");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto file = io::SafetensorsFile::parse(as_bytes(data, size), "fuzz");
    check_invariants(file, size);
    check_round_trip(file);
  } catch (const Error& error) {
    require_refusal(error, ErrorKind::Model);
  }
  return 0;
}

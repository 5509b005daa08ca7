// GGUF files, streamed tensor by tensor, read back before they get their name; and the comparison of two
// models.
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/file.h"
#include "io/gguf.h"
#include "ir/gguf_form.h"
#include "ir/state.h"
#include "ir/write.h"

namespace slmc::ir {
namespace {

namespace fs = std::filesystem;

void write_tensors(const Model& model, const Fit& fit, const TypeOf& type_of, io::GgufWriter& writer,
                   const std::vector<io::GgufWriter::Entry>& entries, const Progress& progress) {
  std::int64_t all = 0, done = 0;
  for (const io::GgufWriter::Entry& e : entries) {
    const io::GgmlTypeInfo& type = io::info(e.type);
    std::int64_t n = 1;
    for (const std::int64_t s : e.shape) n *= s;
    all += n / type.block * type.bytes;
  }
  for (std::size_t i = 0; i < fit.stored.size(); ++i) {
    const io::TensorData data = stored_form(model, fit.stored[i], fit, type_of);
    const std::vector<std::byte> bytes = io::encode(data, entries[i].type, fit.stored[i].name);
    writer.write(entries[i].name, bytes);
    done += static_cast<std::int64_t>(bytes.size());
    if (progress.tick) progress.tick(done, all);
  }
  if (fit.rope_factors) {
    const std::vector<float> factors = rope_factors(model.state().ropes[0], model.sizes().blocks[0].freq);
    writer.write("rope_freqs.weight", std::as_bytes(std::span(factors)));
  }
}

}  // namespace

void write_gguf(const Model& model, const fs::path& file,
                const std::vector<std::pair<std::string, std::string>>& format, const Progress& progress) {
  const Fit how = require_fit(model, "gguf");
  const TypeOf type_of = gguf_type_of(model, format);
  const std::vector<io::GgufWriter::Entry> entries = gguf_entries(model, how, type_of);
  io::GgufWriter writer(file, gguf_metadata(model, how, type_of), entries);
  write_tensors(model, how, type_of, writer, entries, progress);
  require_read_back(writer.path().string(), model, how, type_of);
  writer.finish();
}

std::vector<std::pair<std::string, double>> compare(const Model& a, const Model& b) {
  constexpr double kOnlyInOne = std::numeric_limits<double>::infinity();
  std::vector<std::pair<std::string, double>> result;
  for (const TensorSpec& spec : a.tensors()) {
    const TensorSpec* other = b.find(spec.name);
    if (!other || other->shape != spec.shape) {
      result.emplace_back(spec.name, kOnlyInOne);
      continue;
    }
    const std::vector<float> x = a.read(spec.name).to_floats(), y = b.read(spec.name).to_floats();
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
      worst = std::max(worst, std::fabs(static_cast<double>(x[i]) - static_cast<double>(y[i])));
    result.emplace_back(spec.name, worst);
  }
  for (const TensorSpec& spec : b.tensors())
    if (!a.has(spec.name)) result.emplace_back(spec.name, kOnlyInOne);
  return result;
}

}  // namespace slmc::ir

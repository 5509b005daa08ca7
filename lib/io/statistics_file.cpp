#include "io/statistics_file.h"

#include <fmt/format.h>
#include <hdf5.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/bytes.h"
#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"

namespace slmc::io {
namespace fs = std::filesystem;
namespace {

// HDF5 lets a file begin with a block of its user's. Ours is one line with the hash of everything behind it,
// because the HDF5 library trusts its input: a flipped byte in its metadata can crash it. Only an intact file
// is ever handed to it.
constexpr std::uint64_t kUserBlock = 512;
constexpr std::string_view kMagic = "slmc statistics 1 sha256 ";
constexpr std::size_t kMostHeader =
    60000;  // an HDF5 attribute of the compatible format must stay below 64 KiB
constexpr std::uint64_t kChunkBytes = 1 << 20;

std::mutex library;  // Debian's serial HDF5 is not thread safe, not even for two files

[[noreturn]] void fail(ErrorKind kind, const fs::path& file, std::string message) {
  throw Error(kind, Place{file.string(), 0, 0, 1, {}}, std::move(message));
}

// The deepest reason on HDF5's error stack.
std::string reason() {
  std::string text = "no reason given";
  const auto visit = [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
    if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, visit, &text);
  return text;
}

// An open HDF5 object; every kind has its own close function.
class Handle {
 public:
  Handle() = default;
  Handle(hid_t id, herr_t (*closer)(hid_t)) : id_(id), close_(closer) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() { close(); }
  bool close() { return id_ < 0 || close_(std::exchange(id_, -1)) >= 0; }
  operator hid_t() const { return id_; }
  bool ok() const { return id_ >= 0; }

 private:
  hid_t id_ = -1;
  herr_t (*close_)(hid_t) = nullptr;
};

void silence() { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }  // else HDF5 prints its errors itself

// The temporary is locked by AtomicFile already; HDF5's own lock on the same file would fail.
Handle file_access() {
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_file_locking(access, false, true);
  return access;
}

hid_t stored_type(DType type) {
  switch (type) {
    case DType::F32: return H5T_IEEE_F32LE;
    case DType::F64: return H5T_IEEE_F64LE;
    case DType::I64: return H5T_STD_I64LE;
    default: SLMC_CHECK(!"statistics are F32, F64 or I64");
  }
  return -1;
}

std::optional<DType> dtype_of(hid_t type) {
  for (DType t : {DType::F32, DType::F64, DType::I64}) {
    if (H5Tequal(type, stored_type(t)) > 0) return t;
  }
  return std::nullopt;
}

}  // namespace

// ---- writing ----

struct StatisticsWriter::State {
  fs::path target;
  AtomicFile file;
  Handle h5;
  State(const fs::path& path) : target(path), file(path) {}
  ~State() {
    const std::lock_guard lock(library);
    h5.close();
  }

  // HDF5 writes when it likes, so the seam of tests stands before each call that may.
  void require(bool good, std::string_view what) const {
    const std::string why = good ? "" : reason();
    if (good && !testing::write_must_fail()) return;
    fail(ErrorKind::Resource, target,
         fmt::format("{} must be writable, but is not: {}", what, good ? "No space left on device" : why));
  }
};

namespace {

Handle dataspace(const std::vector<std::int64_t>& shape) {
  if (shape.empty()) return Handle(H5Screate(H5S_SCALAR), H5Sclose);
  const std::vector<hsize_t> sizes(shape.begin(), shape.end());
  return Handle(H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr), H5Sclose);
}

// Whole rows in chunks of about kChunkBytes. No creation times: equal statistics are equal files.
Handle dataset_creation(const TensorData& data) {
  Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, false);
  if (data.shape.empty() || data.count() == 0) return creation;
  std::vector<hsize_t> chunk(data.shape.begin(), data.shape.end());
  const std::uint64_t row = data.bytes.size() / chunk[0];
  chunk[0] = std::clamp<hsize_t>(kChunkBytes / row, 1, chunk[0]);
  if (row < (1ull << 32))
    H5Pset_chunk(creation, static_cast<int>(chunk.size()), chunk.data());  // HDF5's limit of a chunk
  return creation;
}

void write_header(hid_t file, const std::string& text) {
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, text.size());
  H5Tset_cset(type, H5T_CSET_UTF8);
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(H5Acreate2(file, "slmc", type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  H5Awrite(attribute, type, text.data());
}

}  // namespace

StatisticsWriter::StatisticsWriter(const fs::path& file, const Json& header)
    : state_(std::make_unique<State>(file)) {
  const std::string text = dump_compact(header);
  SLMC_CHECK(header.is_object() && text.size() <= kMostHeader);
  const std::lock_guard lock(library);
  silence();
  const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_userblock(creation, kUserBlock);
  H5Pset_obj_track_times(creation, false);
  state_->h5 =
      Handle(H5Fcreate(state_->file.path().c_str(), H5F_ACC_TRUNC, creation, file_access()), H5Fclose);
  state_->require(state_->h5.ok(), "the file of statistics");
  write_header(state_->h5, text);
}

StatisticsWriter::StatisticsWriter(StatisticsWriter&&) noexcept = default;
StatisticsWriter::~StatisticsWriter() = default;

void StatisticsWriter::write(const std::string& name, const TensorData& data) {
  SLMC_CHECK(!data.quantized && !name.empty());
  const std::lock_guard lock(library);
  const hid_t type = stored_type(data.dtype);
  const Handle space = dataspace(data.shape), creation = dataset_creation(data);
  const Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(links, 1);
  Handle set(H5Dcreate2(state_->h5, name.c_str(), type, space, links, creation, H5P_DEFAULT), H5Dclose);
  const bool written = set.ok() && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data.bytes.data()) >= 0;
  state_->require(written, fmt::format("'{}'", name));
  state_->require(set.close(), fmt::format("'{}'", name));
}

void StatisticsWriter::finish() {
  {
    const std::lock_guard lock(library);
    state_->require(H5Fflush(state_->h5, H5F_SCOPE_GLOBAL) >= 0, "the file of statistics");
    state_->require(state_->h5.close(), "the file of statistics");
  }
  const MappedFile map = MappedFile::open(state_->file.path());
  const std::string hash = Sha256().add(map.bytes().subspan(kUserBlock)).hex();
  std::string line = std::string(kMagic) + hash + "\n";
  line.resize(kUserBlock, '\0');
  state_->file.write_at(0, std::as_bytes(std::span(line)));
  state_->file.commit();
}

// ---- reading ----

struct StatisticsFile::State {
  fs::path path;
  std::uint64_t bytes = 0;
  Handle file;
  Json header;
  std::vector<std::string> names;
  ~State() {
    const std::lock_guard lock(library);
    file.close();
  }
};

namespace {

void require_intact(const fs::path& path, std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()),
                              std::min<std::size_t>(bytes.size(), kUserBlock));
  if (text.size() < kUserBlock || !text.starts_with(kMagic)) {
    fail(ErrorKind::Data, path,
         fmt::format("the file of statistics must begin with '{}', but does not", kMagic));
  }
  std::string expected = std::string(kMagic) + Sha256().add(bytes.subspan(kUserBlock)).hex() + "\n";
  expected.resize(kUserBlock, '\0');
  if (text != expected)
    fail(ErrorKind::Data, path,
         "the file of statistics must have the hash in its first line, but is damaged");
}

std::string read_header(hid_t file, const fs::path& path) {
  const Handle attribute(H5Aopen(file, "slmc", H5P_DEFAULT), H5Aclose);
  if (!attribute.ok()) fail(ErrorKind::Data, path, "the file must have an attribute 'slmc', but has none");
  const Handle type(H5Aget_type(attribute), H5Tclose);
  std::string text(H5Tget_size(type), '\0');
  if (H5Tget_class(type) != H5T_STRING || text.size() > kMostHeader ||
      H5Aread(attribute, type, text.data()) < 0) {
    fail(ErrorKind::Data, path, "the attribute 'slmc' must be a short text, but is not");
  }
  return text;
}

std::vector<std::string> dataset_names(hid_t file, const fs::path& path) {
  std::vector<std::string> names;
  const auto visit = [](hid_t, const char* name, const H5O_info_t* info, void* out) -> herr_t {
    if (info->type == H5O_TYPE_DATASET) static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  if (H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_NATIVE, visit, &names, H5O_INFO_BASIC) < 0) {
    fail(ErrorKind::Data, path, "the datasets must be readable, but are not: " + reason());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

StatisticsFile StatisticsFile::open(const fs::path& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  try {
    const MappedFile map = MappedFile::open(path);
    require_intact(path, map.bytes());
    state->bytes = map.bytes().size();
  } catch (const Error& error) {
    throw Error(ErrorKind::Data, error.diagnostics());
  }
  {
    const std::lock_guard lock(library);
    silence();
    state->file = Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, file_access()), H5Fclose);
    if (!state->file.ok())
      fail(ErrorKind::Data, path, "the file must be readable as HDF5, but is not: " + reason());
    state->header = parse_json(read_header(state->file, path), path.string(), ErrorKind::Data);
    state->names = dataset_names(state->file, path);
  }
  return StatisticsFile(std::move(state));
}

StatisticsFile::StatisticsFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
StatisticsFile::StatisticsFile(StatisticsFile&&) noexcept = default;
StatisticsFile& StatisticsFile::operator=(StatisticsFile&&) noexcept = default;
StatisticsFile::~StatisticsFile() = default;

const Json& StatisticsFile::header() const { return state_->header; }
std::vector<std::string> StatisticsFile::names() const { return state_->names; }

bool StatisticsFile::has(const std::string& name) const {
  return std::binary_search(state_->names.begin(), state_->names.end(), name);
}

TensorData StatisticsFile::read(const std::string& name) const {
  if (!has(name)) {
    const std::string guess = closest(name, state_->names);
    throw Error(ErrorKind::Data, Place{state_->path.string(), 0, 0, 1, {}},
                fmt::format("the dataset '{}' must be in the file, but is not", name),
                guess.empty() ? "" : fmt::format("did you mean '{}'?", guess));
  }
  const std::lock_guard lock(library);
  const Handle set(H5Dopen2(state_->file, name.c_str(), H5P_DEFAULT), H5Dclose);
  const Handle type(H5Dget_type(set), H5Tclose), space(H5Dget_space(set), H5Sclose);
  const std::optional<DType> dtype = dtype_of(type);
  if (!dtype)
    fail(ErrorKind::Data, state_->path,
         fmt::format("the dataset '{}' must be F32, F64 or I64, but is not", name));
  std::vector<hsize_t> sizes(static_cast<std::size_t>(std::max(0, H5Sget_simple_extent_ndims(space))));
  H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
  std::vector<std::int64_t> shape(sizes.begin(), sizes.end());
  const std::uint64_t bytes =
      checked_mul(element_count(shape, "the dataset"), size_of(*dtype), "the dataset");
  if (bytes > state_->bytes)
    fail(ErrorKind::Data, state_->path,
         fmt::format("the dataset '{}' must fit in its file, but does not", name));
  std::vector<std::byte> out(bytes);
  if (H5Dread(set, stored_type(*dtype), H5S_ALL, H5S_ALL, H5P_DEFAULT, out.data()) < 0) {
    fail(ErrorKind::Data, state_->path,
         fmt::format("the dataset '{}' must be readable, but is not: {}", name, reason()));
  }
  return TensorData::dense(std::move(shape), *dtype, std::move(out));
}

}  // namespace slmc::io

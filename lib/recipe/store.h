#pragma once
// Inside recipe: the work folder. A stage's folder is whole or does not exist; this file knows its layout,
// nothing else does.
//
//   work/NN-ID-KEY8/          finished
//   work/.NN-ID-KEY8/         being made; resume/ survives a kill
//   work/.NN-ID-KEY8.old/     finished before, while it is replaced where the file system can't exchange names
//   work/.locks/NN-ID-KEY8/   locked while someone makes it; stays, so that no two can hold locks of one name
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "core/json.h"

namespace slmc::recipe {

inline constexpr int kManifestVersion = 1;

std::filesystem::path stage_folder(const std::filesystem::path& work, std::size_t number,
                                   const std::string& id, const std::string& key);
std::filesystem::path partial_folder(const std::filesystem::path& finished);
std::filesystem::path lock_folder(const std::filesystem::path& finished);  // made when missing
std::string artefact_name(const std::string& container);  // "model" or "model.gguf"

// The manifest of a finished (or finished but not renamed) folder; nothing when there is none, or it is of
// another key or version.
std::optional<Json> read_manifest(const std::filesystem::path& folder, const std::string& key);
std::string manifest_check(const Json& manifest);  // hash of all other fields
// Path, size and SHA-256 of every file of the artefact but its lineage, relative to `folder`.
Json describe_files(const std::filesystem::path& folder, const std::string& artefact);
// Whether the artefact is there with the bytes that the manifest says. Damaged ones count as absent.
// `thorough` reads everything.
bool artefact_is_whole(const std::filesystem::path& folder, const Json& manifest, bool thorough);

// The manifest of a folder whose artefact is there, every byte of it; nothing when either is not.
std::optional<Json> find_whole(const std::filesystem::path& folder, const std::string& key);

// Removes what killed runs left of this stage with other keys: partial folders and old ones moved aside,
// unless someone holds their lock.
void sweep(const std::filesystem::path& work, std::size_t number, const std::string& id,
           const std::string& key);
// Empties a partial folder but for its checkpoints.
void sweep_partial(const std::filesystem::path& partial);
// Gives a finished folder its name back that a run, killed while it replaced it, had moved aside. The caller holds the lock.
void take_back(const std::filesystem::path& finished);
// Renames `partial` to `finished`, which is swapped out and removed when it is there. Error(Resource): it is then what it was.
// The caller holds its lock.
void publish(const std::filesystem::path& partial, const std::filesystem::path& finished);

// Copies a model and its lineage to `target`, which appears whole or not at all.
void deliver(const std::filesystem::path& model, const std::filesystem::path& target, bool replace);

// For tests: exchanging two names fails as on a file system that can't, until called with false.
void deny_exchange(bool denied);

}  // namespace slmc::recipe

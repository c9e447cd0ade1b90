#include "train/train_checkpoint.h"

#include <ATen/ATen.h>
#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <thread>

#include "base/error.h"
#include "files/bounded_json.h"
#include "files/tensor_file.h"
#include "weights/tensor_writer.h"

namespace calotype::train {
namespace fs = std::filesystem;
using base::ErrorKind;
using nlohmann::json;

namespace {

constexpr std::string_view kPrefix = "checkpoint-", kSuffix = ".safetensors";
constexpr size_t kKept = 2;
constexpr const char *kDocument = "calotype.checkpoint", *kChecksum = "calotype.checksum";

/// The step of "checkpoint-000001234.safetensors"; nothing for other names.
std::optional<int64_t> step_of(std::string_view file) {
  if (!file.starts_with(kPrefix) || !file.ends_with(kSuffix)) return std::nullopt;
  const std::string_view digits = file.substr(kPrefix.size(), file.size() - kPrefix.size() - kSuffix.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (error != std::errc{} || end != digits.data() + digits.size() || digits.size() < 9 || step < 0)
    return std::nullopt;
  return step;
}

/// AtomicFile's temporary file for a checkpoint.
bool is_leftover(std::string_view file) {
  const size_t end = file.rfind(".partial-");
  return end != std::string_view::npos && step_of(file.substr(0, end)).has_value();
}

/// CRC-32 of everything a checkpoint holds. The file's own header protects neither numbers nor names.
std::string checksum(const std::map<std::string, at::Tensor>& tensors, std::string_view document) {
  uLong crc = ::crc32_z(0, nullptr, 0);
  const auto add = [&](const void* bytes, size_t size) {
    if (size) crc = ::crc32_z(crc, static_cast<const Bytef*>(bytes), size);
  };
  const auto add_text = [&](std::string_view text) {
    add(text.data(), text.size());
    add("\n", 1);
  };
  add_text(document);
  for (const auto& [name, tensor] : tensors) {
    add_text(name);
    add_text(fmt::format("{} {}", c10::toString(tensor.scalar_type()), files::shape_text(tensor.sizes().vec())));
    const at::Tensor values = tensor.detach().cpu().contiguous();
    add(values.const_data_ptr(), values.nbytes());
  }
  return fmt::format("{:08x}", crc);
}

/// Error corrupt_file or unsupported for a file that is not, or no longer, a checkpoint of ours.
Checkpoint read(const fs::path& path) {
  std::map<std::string, std::string> metadata;
  Checkpoint out{.tensors = weights::read_tensors(path, &metadata)};
  const std::string &document = metadata[kDocument], &stored = metadata[kChecksum];
  base::check(!stored.empty(), ErrorKind::corrupt_file, "{}: has no checksum, so Calotype did not write it",
              path.string());
  const std::string computed = checksum(out.tensors, document);
  base::check(stored == computed, ErrorKind::corrupt_file,
              "{}: its contents have checksum {}, expected {}; they changed after it was written", path.string(),
              computed, base::printable(stored));
  const json parsed = files::parse_bounded_json(document, path.string());
  base::check(
      parsed.is_object() && parsed.contains("state") && parsed.contains("step") && parsed["step"].is_number_integer(),
      ErrorKind::corrupt_file, "{}: its metadata {} lacks the step or the state", path.string(), kDocument);
  out.step = parsed["step"].get<int64_t>();
  out.state = parsed["state"];
  return out;
}

bool canceled(const base::CancelToken* cancel) { return cancel && cancel->requested(); }

void pause(std::chrono::milliseconds wait, const base::CancelToken* cancel) {
  const auto end = std::chrono::steady_clock::now() + wait;
  while (!canceled(cancel) && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::min(wait, std::chrono::milliseconds(100)));
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  base::check(!error, error == std::errc::no_space_on_device ? ErrorKind::disk_full : ErrorKind::bad_input,
              "{}: cannot make this folder for checkpoints: {}", folder.string(), error.message());
}

}  // namespace

void write_when_there_is_space(const std::function<void()>& write, const base::CancelToken* cancel, const Note& note,
                               std::chrono::milliseconds first_wait) {
  constexpr std::chrono::milliseconds kLongestWait = std::chrono::minutes(1);
  for (std::chrono::milliseconds wait = first_wait;; wait = std::min(2 * wait, kLongestWait)) {
    const bool last = canceled(cancel);
    try {
      return write();
    } catch (const base::Error& error) {
      if (error.kind() != ErrorKind::disk_full || last) throw;
      note(fmt::format("{}; waiting for space, next attempt in {:.0f} s", error.what(),
                       std::chrono::duration<double>(wait).count()));
    }
    pause(wait, cancel);
  }
}

CheckpointFolder::CheckpointFolder(fs::path folder, std::chrono::milliseconds first_wait)
    : folder_(std::move(folder)), first_wait_(first_wait) {}

fs::path CheckpointFolder::path(int64_t step) const {
  return folder_ / fmt::format("{}{:09}{}", kPrefix, step, kSuffix);
}

std::map<int64_t, fs::path> CheckpointFolder::files() const {
  std::map<int64_t, fs::path> out;
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator(folder_, missing))
    if (const auto step = step_of(entry.path().filename().string())) out[*step] = entry.path();
  return out;
}

void CheckpointFolder::remove_leftovers() const {
  std::error_code ignored;
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(folder_, ignored))
    if (is_leftover(entry.path().filename().string())) leftovers.push_back(entry.path());
  for (const fs::path& path : leftovers) fs::remove(path, ignored);
}

void CheckpointFolder::retire(int64_t newest, const Note& note) const {
  std::error_code ignored;
  std::map<int64_t, fs::path> all = files();
  for (auto later = all.upper_bound(newest); later != all.end(); later = all.erase(later)) {
    fs::path aside = later->second;
    fs::rename(later->second, aside += ".superseded", ignored);
    note(fmt::format("{}: belongs to a later step than the one now saved ({}) and was renamed to {}",
                     later->second.string(), newest, aside.filename().string()));
  }
  for (; all.size() > kKept; all.erase(all.begin())) fs::remove(all.begin()->second, ignored);
}

void CheckpointFolder::save(const Checkpoint& checkpoint, const base::CancelToken* cancel, const Note& note) {
  const std::string document = json{{"step", checkpoint.step}, {"state", checkpoint.state}}.dump();
  const std::map<std::string, std::string> metadata = {{kDocument, document},
                                                       {kChecksum, checksum(checkpoint.tensors, document)}};
  const auto write = [&] {
    make_folder(folder_);
    remove_leftovers();
    weights::write_tensors(path(checkpoint.step), checkpoint.tensors, metadata);
  };
  write_when_there_is_space(write, cancel, note, first_wait_);
  retire(checkpoint.step, note);
}

std::optional<Checkpoint> CheckpointFolder::load(const Note& note) const {
  const std::map<int64_t, fs::path> all = files();
  for (auto newest = all.rbegin(); newest != all.rend(); ++newest) {
    try {
      return read(newest->second);
    } catch (const base::Error& error) {
      if (error.kind() != ErrorKind::corrupt_file && error.kind() != ErrorKind::unsupported) throw;
      note(fmt::format("damaged checkpoint skipped: {}", error.what()));
    }
  }
  return std::nullopt;
}

}  // namespace calotype::train

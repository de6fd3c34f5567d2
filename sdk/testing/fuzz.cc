#include "vdev/testing/fuzz.hpp"

namespace vdev::testing {

int fuzz_one(const std::string& path, const std::string& device, std::span<const u8> input, const Options& options,
             void (*prepare)(Bench&)) {
  static const std::shared_ptr<Library> library = Library::open(path); // one target, one library
  constexpr std::size_t MOST_ACTIONS = 512;
  Options with_device = options;
  with_device.device = device;
  Bench bench(library, with_device);
  if (prepare) prepare(bench);
  std::vector<Action> actions = decode(input);
  if (actions.size() > MOST_ACTIONS) actions.resize(MOST_ACTIONS);
  for (const Action& action : actions) run(bench, action);
  return 0;
}

} // namespace vdev::testing

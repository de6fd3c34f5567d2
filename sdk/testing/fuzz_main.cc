// What a fuzz target is without libFuzzer: runs the named inputs, or random ones.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "%s: cannot be read\n", argv[i]);
      return 1;
    }
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
  if (argc > 1) return 0;
  std::mt19937_64 random(1);
  for (int run = 0; run < 300; ++run) {
    std::vector<std::uint8_t> input(16 * (random() % 128));
    for (std::uint8_t& byte : input) byte = std::uint8_t(random() % 4 ? random() % 8 : random());
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  return 0;
}

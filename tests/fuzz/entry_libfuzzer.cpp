// Where libFuzzer hands an input to the target (llvm.org/docs/LibFuzzer.html).
#include "tests/fuzz/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  penstock::fuzz::try_input({reinterpret_cast<const char*>(data), size});
  return 0;
}

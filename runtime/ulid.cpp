// See ulid.hpp. The random part of a thread's first id in a millisecond is drawn with its highest bit clear,
// so that counting up within the millisecond cannot run over.
#include "runtime/ulid.hpp"

#include <array>
#include <random>

#include <spdlog/fmt/fmt.h>

namespace penstock::runtime {
namespace {

constexpr std::string_view alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";  // Crockford's base32

// In milliseconds. A clock that is corrected by less keeps the order of the ids: their time stands still until the clock is
// there again. One that is set back further is believed, lest ids carry a wrong time for hours.
constexpr std::uint64_t small_step = 1000;

struct generator {
  std::mt19937_64 random;
  std::uint64_t milliseconds = ~std::uint64_t{0};  // of the last id; no real time is like this
  std::uint64_t high = 0;                          // the last id's 80 random bits: upper 16 ...
  std::uint64_t low = 0;                           // ... and lower 64

  generator() {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device(), device(), device(), device(), device()};
    random.seed(seed);
  }

  void advance(std::uint64_t now) {
    if (now <= milliseconds && milliseconds - now < small_step) {
      if (++low == 0) ++high;
      return;
    }
    milliseconds = now;
    high = random() & 0x7fff;
    low = random();
  }
};

}  // namespace

void make_ulid(timestamp now, char* out) {
  thread_local generator own;
  const auto milliseconds = std::chrono::floor<std::chrono::milliseconds>(now.time_since_epoch()).count();
  own.advance(static_cast<std::uint64_t>(milliseconds) & 0xffff'ffff'ffff);
  std::uint64_t high = own.milliseconds << 16 | own.high;
  std::uint64_t low = own.low;
  for (std::size_t i = ulid_size; i-- > 0;) {
    out[i] = alphabet[low & 31];
    low = low >> 5 | high << 59;
    high >>= 5;
  }
}

std::string make_ulid(timestamp now) {
  std::string id(ulid_size, '0');
  make_ulid(now, id.data());
  return id;
}

bool is_ulid(std::string_view text) {
  // 26 characters hold 130 bits: the first one's two highest bits must be zero.
  return text.size() == ulid_size && text.front() <= '7' &&
         text.find_first_not_of(alphabet) == std::string_view::npos;
}

std::string ulid_as_hex(std::string_view id) {
  std::uint64_t high = 0, low = 0;
  if (is_ulid(id)) {
    for (const char c : id) {
      high = high << 5 | low >> 59;
      low = low << 5 | alphabet.find(c);
    }
  }
  return fmt::format("{:016x}{:016x}", high, low);
}

}  // namespace penstock::runtime

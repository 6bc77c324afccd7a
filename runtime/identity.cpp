#include "runtime/identity.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <grp.h>
#include <pwd.h>
#include <system_error>
#include <unistd.h>

namespace penstock::runtime {

namespace {

// Nothing: it is a name. The highest number means "no change" to the kernel, so nobody has it.
std::optional<std::uint32_t> number_in(const std::string& text) {
  std::uint32_t number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failure != std::errc{} || end != text.data() + text.size() || number == UINT32_MAX) return std::nullopt;
  return number;
}

// The entry that `look_up(buffer, found)` finds, as getpwnam_r(3) and its like do; `found` is null when there is
// none.
template <class Entry, class LookUp>
int find_entry(std::vector<char>& buffer, Entry& entry, Entry*& found, LookUp look_up) {
  buffer.resize(4096);
  for (;;) {
    found = nullptr;
    const int failure = look_up(entry, buffer, found);
    if (failure == ERANGE && buffer.size() < (std::size_t{16} << 20)) {
      buffer.resize(buffer.size() * 4);
    } else if (failure != EINTR) {
      // getpwnam(3): these mean on some machines that there is none.
      return failure == ENOENT || failure == ESRCH || failure == EBADF || failure == EPERM ? 0 : failure;
    }
  }
}

error not_readable(const std::string& what, int error_number) {
  return {errc::unavailable, what + " cannot be looked up: " + std::generic_category().message(error_number)};
}

std::vector<gid_t> groups_of(const std::string& login, gid_t own) {
  std::vector<gid_t> groups(64);
  int count = static_cast<int>(groups.size());
  while (::getgrouplist(login.c_str(), own, groups.data(), &count) < 0)
    groups.resize(std::max(groups.size() * 2, static_cast<std::size_t>(count)));
  groups.resize(static_cast<std::size_t>(count));
  return groups;
}

result<void> find_user(identity& is) {
  std::vector<char> buffer;
  passwd entry{}, *found = nullptr;
  const auto number = number_in(is.user);
  const int failure = find_entry(buffer, entry, found, [&](passwd& e, std::vector<char>& space, passwd*& f) {
    return number ? ::getpwuid_r(*number, &e, space.data(), space.size(), &f)
                  : ::getpwnam_r(is.user.c_str(), &e, space.data(), space.size(), &f);
  });
  if (failure != 0) return not_readable("user '" + is.user + "'", failure);
  if (found) {
    is.uid = found->pw_uid;
    is.gid = found->pw_gid;
    is.login = found->pw_name;
    is.home = found->pw_dir;
    return {};
  }
  if (!number) return error{errc::invalid, "there is no user '" + is.user + "'"};
  if (is.group.empty())
    return error{errc::invalid, "there is no user '" + is.user + "' to tell its group: give one"};
  is.uid = *number;
  return {};
}

result<void> find_group(identity& is) {
  std::vector<char> buffer;
  group entry{}, *found = nullptr;
  if (const auto number = number_in(is.group)) {
    is.gid = *number;
    return {};
  }
  const int failure = find_entry(buffer, entry, found, [&](group& e, std::vector<char>& space, group*& f) {
    return ::getgrnam_r(is.group.c_str(), &e, space.data(), space.size(), &f);
  });
  if (failure != 0) return not_readable("group '" + is.group + "'", failure);
  if (!found) return error{errc::invalid, "there is no group '" + is.group + "'"};
  is.gid = found->gr_gid;
  return {};
}

}  // namespace

result<identity> find_identity(const std::string& user, const std::string& group) {
  identity is;
  is.uid = ::geteuid();
  is.gid = ::getegid();
  is.user = user;
  is.group = group;
  if (!user.empty()) {
    if (auto found = find_user(is); !found) return found.error();
  }
  if (!group.empty()) {
    if (auto found = find_group(is); !found) return found.error();
  }
  if (!user.empty())
    is.groups = is.login.empty() ? std::vector<gid_t>{is.gid} : groups_of(is.login, is.gid);
  is.is_ours = is.uid == ::geteuid() && is.gid == ::getegid();
  return is;
}

}  // namespace penstock::runtime

#include "runtime/webhooks.hpp"

#include <utility>
#include <vector>

#include "config/field.hpp"

namespace penstock::runtime {

// What a claim returns: gone, the path is free again.
struct webhooks::token {
  token(webhooks& o, std::string p) : owner(o), path(std::move(p)) {}
  ~token() { owner.release(path); }
  token(const token&) = delete;
  token& operator=(const token&) = delete;

  webhooks& owner;
  std::string path;
};

result<std::shared_ptr<void>> webhooks::claim(const std::string& path, receiver take) {
  auto held = std::make_shared<receiver>(std::move(take));
  {
    const std::lock_guard lock(mutex_);
    if (!receivers_.emplace(path, std::move(held)).second) {
      return error{errc::conflict, "another flow receives at /hooks" + path};
    }
  }
  return std::shared_ptr<void>(std::make_shared<token>(*this, path));
}

void webhooks::release(const std::string& path) {
  const std::lock_guard lock(mutex_);
  receivers_.erase(path);
}

result<std::shared_ptr<webhooks::receiver>> webhooks::find(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (const auto found = receivers_.find(path); found != receivers_.end()) return found->second;
  if (reserved_.contains(path)) {
    return error{errc::unavailable, "the flow behind /hooks" + path + " is not running now", {}, 1};
  }
  std::vector<std::string> known;
  for (const auto& [other, _] : receivers_) known.push_back(other);
  for (const auto& [other, _] : reserved_) known.push_back(other);
  const std::string near = config::nearest(path, known);
  return error{errc::not_found, "no flow receives at /hooks" + path +
                                    (near.empty() ? "" : "; did you mean /hooks" + near + "?")};
}

asio::awaitable<result<delivery_answer>> webhooks::deliver(std::string path, delivery d) {
  const result<std::shared_ptr<receiver>> found = find(path);
  if (!found) co_return found.error();
  const std::shared_ptr<receiver> take = *found;  // stays alive when the claim ends meanwhile
  co_return co_await (*take)(std::move(d));
}

void webhooks::reserve(const std::string& path) {
  const std::lock_guard lock(mutex_);
  ++reserved_[path];
}

void webhooks::unreserve(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const auto found = reserved_.find(path);
  if (found != reserved_.end() && --found->second == 0) reserved_.erase(found);
}

}  // namespace penstock::runtime

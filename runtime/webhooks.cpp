#include "runtime/webhooks.hpp"

#include <boost/asio/this_coro.hpp>
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
      return error{errc::conflict, "something else receives at /hooks" + path};
    }
    for (const auto& one : waiting_) one->notify();
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
    return error{errc::unavailable, "what receives at /hooks" + path + " is not running now", {}, 1};
  }
  std::vector<std::string> known;
  for (const auto& [other, _] : receivers_) known.push_back(other);
  for (const auto& [other, _] : reserved_) known.push_back(other);
  const std::string near = config::nearest(path, known);
  return error{errc::not_found, "nothing receives at /hooks" + path +
                                    (near.empty() ? "" : "; did you mean /hooks" + near + "?")};
}

// Waits for the receiver of a reserved path, up to opening_patience; then what find() says stands.
asio::awaitable<result<std::shared_ptr<webhooks::receiver>>> webhooks::await_receiver(std::string path) {
  const auto deadline = std::chrono::steady_clock::now() + opening_patience;
  const auto opened = std::make_shared<wakeup>(co_await asio::this_coro::executor);
  {
    const std::lock_guard lock(mutex_);
    waiting_.insert(opened);
  }
  result<std::shared_ptr<receiver>> found = find(path);
  while (!found && found.error().code == errc::unavailable) {
    if (!co_await opened->wait_until(deadline)) break;
    found = find(path);
  }
  const std::lock_guard lock(mutex_);
  waiting_.erase(opened);
  co_return found;
}

asio::awaitable<result<delivery_answer>> webhooks::deliver(std::string path, delivery d) {
  result<std::shared_ptr<receiver>> found = find(path);
  if (!found && found.error().code == errc::unavailable) found = co_await await_receiver(path);
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

std::shared_ptr<replay_memory> webhooks::replays(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const timestamp now = wall_now();
  std::erase_if(replays_, [now](const auto& one) { return one.second.use_count() == 1 && one.second->size(now) == 0; });
  auto& found = replays_[path];
  if (!found) found = std::make_shared<replay_memory>();
  return found;
}

}  // namespace penstock::runtime

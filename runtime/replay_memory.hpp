// Which deliveries a hook has taken already, so that a replay is not taken again.
//
// A delivery is claimed before anything is done with it. Only one that was accepted is remembered; one that was not may
// come again. While one is on its way, its double gets no answer that could prove wrong. Bounded by time and by count,
// and full it takes nothing new: to forget one early would let its replay in. In memory only: a restart forgets.
//
// Belongs to the path (webhooks::replays), not to the flow or job behind it, so that these may be replaced. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <queue>
#include <unordered_map>
#include <utility>
#include <vector>

#include "config/error.hpp"
#include "config/time.hpp"
#include "runtime/webhook_signature.hpp"

namespace penstock::runtime {

class replay_memory : public std::enable_shared_from_this<replay_memory> {
 public:
  // The right to process a delivery. Gone without keep(), the delivery may come again.
  class claim {
   public:
    claim(std::shared_ptr<replay_memory> memory, std::vector<replay_key> keys)
        : memory_(std::move(memory)), keys_(std::move(keys)) {}
    ~claim();
    claim(const claim&) = delete;
    claim& operator=(const claim&) = delete;

    // It was accepted. Its replays are known until then, that moment included.
    void keep(timestamp until);

   private:
    std::shared_ptr<replay_memory> memory_;
    std::vector<replay_key> keys_;
  };

  // Null: it was accepted before. unavailable: one like it is on its way; overloaded: `limit` deliveries are remembered.
  // `keys` are not empty.
  result<std::unique_ptr<claim>> begin(const std::vector<replay_key>& keys, timestamp now, std::size_t limit);

  std::size_t size(timestamp now);  // deliveries remembered

 private:
  struct key_hash {
    std::size_t operator()(const replay_key& key) const;
  };
  enum class state { on_its_way, accepted };
  struct remembered {
    timestamp until;
    std::vector<replay_key> keys;
    bool operator>(const remembered& other) const { return until > other.until; }
  };

  void forget_old(timestamp now);
  void forget(const std::vector<replay_key>& keys);

  std::mutex mutex_;
  std::unordered_map<replay_key, state, key_hash> known_;
  std::priority_queue<remembered, std::vector<remembered>, std::greater<>> by_age_;
  std::size_t on_their_way_ = 0;
};

}  // namespace penstock::runtime

//! A queue of SQS, by its query API, at the queue's own address.

use async_trait::async_trait;
use reqwest::Url;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::OnceCell;

use super::{
    found,
    query::{QUEUES, Query},
};
use crate::provider::ecs::{
    api::Failure,
    events::{Message, Queue},
};

/// How long a question waits for a message, s: less than a request may take.
const WAIT: &str = "8";
/// Messages that one answer has, the most there are.
const AT_ONCE: &str = "10";

/// A queue at Amazon.
pub(in crate::provider::ecs) struct Sqs {
    url: Url,
    region: Option<String>,
    /// From the first question on for which there were credentials and a region.
    query: OnceCell<Query>,
}

/// `ReceiveMessage`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Received {
    #[serde(default)]
    receive_message_result: Messages,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Messages {
    message: Vec<MessageAnswer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct MessageAnswer {
    receipt_handle: String,
    body: String,
}

/// `DeleteMessageBatch`: what could not be taken out comes again, and costs no more than a reading.
#[derive(Debug, Deserialize)]
struct Deleted {}

// === impl Sqs ===

impl Sqs {
    /// Where the queue's host name has no region and `region` is none, it is what Amazon's own tools find, as the
    /// credentials are.
    pub(in crate::provider::ecs) fn new(url: Url, region: Option<String>) -> Self {
        Self {
            url,
            region,
            query: OnceCell::new(),
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        action: &str,
        words: Vec<(String, String)>,
    ) -> Result<T, Failure> {
        let connect = || async {
            let region = region_in(&self.url).or(self.region.as_deref());
            let (found, identity) = found(region, None).await?;
            Query::new(&found, identity)
        };
        let query = self.query.get_or_try_init(connect).await?;
        let mut all = vec![("QueueUrl".to_owned(), self.url.to_string())];
        all.extend(words);
        query.ask_at(&self.url, QUEUES, action, all).await
    }
}

/// `eu-west-1` of `sqs.eu-west-1.amazonaws.com`.
fn region_in(url: &Url) -> Option<&str> {
    let mut labels = url.host_str()?.split('.');
    let (service, region, domain) = (labels.next()?, labels.next()?, labels.next()?);
    (service == "sqs" && domain == "amazonaws").then_some(region)
}

#[async_trait]
impl Queue for Sqs {
    async fn receive(&self) -> Result<Vec<Message>, Failure> {
        let words = [("WaitTimeSeconds", WAIT), ("MaxNumberOfMessages", AT_ONCE)];
        let words = words.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let answer: Received = self.ask("ReceiveMessage", words.to_vec()).await?;
        let messages = answer.receive_message_result.message.into_iter();
        let messages = messages.map(|message| Message {
            receipt: message.receipt_handle,
            body: message.body,
        });
        Ok(messages.collect())
    }

    async fn delete(&self, messages: &[Message]) -> Result<(), Failure> {
        let words = messages.iter().enumerate().flat_map(|(n, message)| {
            let entry = format!("DeleteMessageBatchRequestEntry.{}", n + 1);
            [
                (format!("{entry}.Id"), n.to_string()),
                (format!("{entry}.ReceiptHandle"), message.receipt.clone()),
            ]
        });
        let _: Deleted = self.ask("DeleteMessageBatch", words.collect()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_and_none_is_no_failure() {
        let read = |xml: &str| {
            let answer: Received = quick_xml::de::from_str(xml).unwrap();
            let messages = answer.receive_message_result.message.into_iter();
            messages
                .map(|message| (message.receipt_handle, message.body))
                .collect::<Vec<_>>()
        };
        let message = |n: u8| {
            format!(
                "<Message><MessageId>{n}</MessageId><ReceiptHandle>r{n}</ReceiptHandle><MD5OfBody>x</MD5OfBody>\
                 <Body>{{&quot;n&quot;: {n}}}</Body></Message>"
            )
        };
        let two = format!(
            "<ReceiveMessageResponse xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\"><ReceiveMessageResult>{}{}\
             </ReceiveMessageResult><ResponseMetadata/></ReceiveMessageResponse>",
            message(1),
            message(2)
        );
        let expected = [("r1", "{\"n\": 1}"), ("r2", "{\"n\": 2}")];
        let expected = expected.map(|(receipt, body)| (receipt.to_owned(), body.to_owned()));
        assert_eq!(read(&two), expected);
        for none in [
            "<ReceiveMessageResponse><ReceiveMessageResult/></ReceiveMessageResponse>",
            "<ReceiveMessageResponse><ResponseMetadata/></ReceiveMessageResponse>",
        ] {
            assert_eq!(read(none), [], "{none}");
        }
        let deleted = "<DeleteMessageBatchResponse><DeleteMessageBatchResult><DeleteMessageBatchResultEntry><Id>0</Id>\
                       </DeleteMessageBatchResultEntry></DeleteMessageBatchResult></DeleteMessageBatchResponse>";
        let _: Deleted = quick_xml::de::from_str(deleted).unwrap();
    }

    #[test]
    fn a_queue_says_its_region() {
        for (url, region) in [
            (
                "https://sqs.eu-west-1.amazonaws.com/123456789012/lb",
                Some("eu-west-1"),
            ),
            (
                "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/lb",
                Some("cn-north-1"),
            ),
            ("https://queue.amazonaws.com/123456789012/lb", None),
            ("http://127.0.0.1:5055/123456789012/lb", None),
        ] {
            assert_eq!(region_in(&Url::parse(url).unwrap()), region, "{url}");
        }
    }
}
